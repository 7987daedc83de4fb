"""A W&B workspace and a W&B report of the runs: curves, images and comparisons.

They are built without a network, and saved if there is a key of W&B.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vaelab.runs import sweep_folder
from vaelab.runtime import console, files
from vaelab.runtime.errors import UserError
from vaelab.training.loggers import has_key

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
except ImportError as missing:
    raise UserError(f'{missing.name} is not installed: type pip install -e ".[dashboard]"') from missing

CURVES = (
    ("loss", ["train/loss", "val/loss"]),
    ("evidence lower bound", ["train/elbo", "val/elbo"]),
    ("reconstruction", ["train/reconstruction", "val/reconstruction"]),
    ("KL divergence", ["train/kl", "val/kl"]),
    ("learning rate", ["lr"]),
)
IMAGES = (
    ("reconstructions", ["val/reconstructions", "test/reconstructions"]),
    ("samples", ["val/samples", "test/samples"]),
    ("latent space", ["test/latents", "test/manifold"]),
    ("classes, errors, paths", ["test/class_reconstructions", "test/errors", "test/path"]),
)
TEST = ("test/elbo", "test/reconstruction", "test/kl", "images_per_second")


def curves() -> list[Any]:
    """Panels of training and validation metrics over the steps."""
    return [
        wr.LinePlot(title=title, x="Step", y=list(names), layout=_place(i, 3))
        for i, (title, names) in enumerate(CURVES)
    ]


def images() -> list[Any]:
    """Panels of logged images, with a slider over the steps."""
    return [
        wr.MediaBrowser(title=title, media_keys=list(keys), mode="gallery", layout=_place(i, 2, 10))
        for i, (title, keys) in enumerate(IMAGES)
    ]


def comparisons(columns: Sequence[str]) -> list[Any]:
    """Panels that compare runs: parallel coordinates, distortion over rate, importance of settings, test metrics.

    Args:
        columns: keys of the runs' configuration.
    """
    axes = [wr.ParallelCoordinatesPlotColumn(wr.Config(name), display_name=_short(name)) for name in columns]
    ends = [wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(name)) for name in ("test/kl", "val/elbo")]
    distortion = wr.ScatterPlot(
        title="rate and distortion",
        x=wr.SummaryMetric("test/kl"),
        y=wr.SummaryMetric("test/reconstruction"),
        z=wr.SummaryMetric("val/elbo"),
        layout=_place(0, 2, 12, 12),
    )
    importance = wr.ParameterImportancePlot(with_respect_to="val/elbo", layout=_place(1, 2, 12, 12))
    bars = [
        wr.BarPlot(title=name, metrics=[wr.SummaryMetric(name)], orientation="h", layout=_place(i, 4, 8, 24))
        for i, name in enumerate(TEST)
    ]
    return [wr.ParallelCoordinatesPlot(columns=[*axes, *ends], layout=_place(0, 1, 12)), distortion, importance, *bars]


def _place(number: int, beside: int, height: int = 8, top: int = 0) -> Any:
    """The layout of a panel in a grid.

    Args:
        number: of the panel, from 0.
        beside: panels in a row.
        height: of the panel.
        top: of the grid.
    """
    width = 24 // beside
    return wr.Layout(x=number % beside * width, y=top + number // beside * height, w=width, h=height)


def _short(name: str) -> str:
    return name.removeprefix("config.")


def _of_group(group: str | None) -> str:
    return f'Metric("Group") == {json.dumps(group)}' if group else ""


def build_workspace(entity: str, project: str, columns: Sequence[str], group: str | None = None) -> Any:
    """The workspace of the project: curves, images and comparisons; the best runs first, grouped by sweep.

    Args:
        entity, project: of W&B.
        columns: keys of the configuration by which runs are compared.
        group: name of a sweep, to show only its runs.
    """
    name = f"vaelab: {group}" if group else "vaelab"
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            ws.Section(name="Curves", panels=curves(), is_open=True),
            ws.Section(name="Images", panels=images(), is_open=True),
            ws.Section(name="Comparison", panels=comparisons(columns), is_open=True),
        ],
        runset_settings=ws.RunsetSettings(
            filters=_of_group(group),
            groupby=[] if group else [ws.Metric("Group")],
            order=[ws.Ordering(ws.Summary("val/elbo"), ascending=False)],
        ),
        auto_generate_panels=False,
    )


def build_report(entity: str, project: str, columns: Sequence[str], group: str | None = None) -> Any:
    """The report with the same panels: comparisons first, then curves and images.

    Args:
        entity, project, columns, group: see :func:`build_workspace`.
    """

    def grid(panels: list[Any]) -> Any:
        runs = wr.Runset(  # without a project: that of the report
            name=group or "all runs",
            filters=_of_group(group),
            order=[wr.OrderBy(wr.SummaryMetric("val/elbo"), ascending=False)],
        )
        return wr.PanelGrid(runsets=[runs], panels=panels)

    about = (
        "Terms are summed over pixels and latent dimensions, and averaged over images. Runs with different images or "
        "losses cannot be compared. The best epoch is chosen on validation images."
    )
    return wr.Report(
        entity=entity,
        project=project,
        title=f"vaelab: {group or 'all runs'}",
        description="Variational autoencoders: curves, images and metrics.",
        blocks=[
            wr.P(about),
            wr.H1("Comparison"),
            grid(comparisons(columns)),
            wr.H1("Curves"),
            grid(curves()),
            wr.H1("Images"),
            grid(images()),
        ],
    )


def columns_of(sweep: Path) -> list[str]:
    """The keys of the settings that a sweep varies, in the W&B configuration of its runs.

    Raises:
        UserError: the folder holds no sweep, or its jobs do not differ.
    """
    jobs = sweep_folder.read(sweep) if sweep.is_dir() else []
    names = sweep_folder.swept(jobs)
    if not names:
        raise UserError(f"{sweep} holds no sweep that varies a setting: type sweep=logs/train/multiruns/<time>")
    # Choices, the number of latent dimensions and the seed are at the top level; other settings are below `config`.
    return [name if "." not in name else f"config.{name}" for name in names]


def group_of(sweep: Path) -> str:
    """The group of a sweep's runs on W&B: the folder of the sweep, unless the user has named another."""
    named = (job.wandb.get("group") for job in sweep_folder.read(sweep))
    return next(filter(None, named), sweep.resolve().name)


def _own_entity() -> str:
    import wandb

    try:
        return str(wandb.Api().default_entity)
    except Exception as error:
        raise UserError(f"W&B did not return the entity of the key ({_reason(error)}): type entity=...") from error


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def dashboard(cfg: DictConfig) -> None:
    """Builds the workspace and the report, writes both into the run folder, and saves them if there is a key.

    Args:
        cfg: as ``configs/dashboard.yaml`` composes it.

    Raises:
        UserError: there is no such sweep, or W&B refuses.
    """
    sweep = None if cfg.sweep is None else Path(cfg.sweep)
    columns = list(cfg.columns) if sweep is None else columns_of(sweep)
    saved = has_key()
    entity = cfg.entity or (_own_entity() if saved else "entity")
    group = None if sweep is None else group_of(sweep)
    built = {
        "workspace": build_workspace(entity, cfg.project, columns, group),
        "report": build_report(entity, cfg.project, columns, group),
    }
    run_dir = Path(cfg.run_dir)
    for name, thing in built.items():
        files.write_json(json.loads(thing._to_model().model_dump_json(by_alias=True)), run_dir / f"{name}.json")
    console.print_line(f"built: {', '.join(f'{name}.json' for name in built)} in {console.short_path(run_dir)}")
    if not saved:
        console.print_line(
            "not saved, because there is no key: put WANDB_API_KEY=... into .env, upload runs with `wandb sync "
            "<run folder>/wandb/offline-run-*`, and type this again"
        )
        return
    for name, thing in built.items():
        try:
            thing.save()
        except Exception as error:
            raise UserError(f"W&B refuses the {name}: {_reason(error)}") from error
        console.print_line(f"{name}: {thing.url}")
