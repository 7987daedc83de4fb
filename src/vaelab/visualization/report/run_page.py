"""The report of one training, or of one evaluation."""

import logging
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from vaelab.runs.metrics import NOT_NATS, NOT_NATS_NOTE, Metric, formatted, term_unit
from vaelab.runs.run_folder import TITLE_GROUPS
from vaelab.runtime import files
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.report import charts, curves
from vaelab.visualization.report.images import ReportFolder
from vaelab.visualization.report.page import (
    NAME,
    Block,
    Cell,
    Page,
    address,
    note,
    section,
    table,
)

T = TypeVar("T")
log = logging.getLogger(__name__)

_SUMS = "Terms are summed over pixels and latent dimensions and averaged over images."
_TERMS = ("elbo", "reconstruction", "kl", "loss", "bits_per_dim")


def _or_default(part: Callable[[], T], default: T) -> T:
    """A part of the page header, or the default if it fails: the header has no place for an error message."""
    try:
        return part()
    except Exception as error:
        log.warning("%s: a part of the header is left out: %s", NAME, type(error).__name__)
        return default


def page(path: Path, metrics: Mapping[str, Any] | None = None) -> Page:
    """The page of a folder with a run, an evaluation, or both.

    Args:
        path: of the folder.
        metrics: final metrics that are not in the folder yet.
    """
    folder = ReportFolder(path)
    if metrics is not None:
        folder.metrics = files.json_values(metrics)
    of_training = bool(folder.config) or not folder.evaluation
    no_images = "There are no images: callbacks.pictures writes them." if of_training else ""
    return Page(
        folder.title,
        _or_default(lambda: _subtitle(folder), ""),
        _or_default(lambda: _tiles(folder), []),
        [
            section("summary", "Summary", lambda: _commands(folder), lambda: _summary(folder)),
            section(
                "metrics",
                "Metrics",
                lambda: _metrics(folder) if of_training else [],
                lambda: _measurements(folder),
                lambda: folder.image_sections.blocks("metrics"),
            ),
            section(
                "curves",
                "Curves",
                lambda: _curves(folder) if of_training or folder.metrics_csv.is_file() else [],
                lambda: folder.image_sections.blocks("curves"),
            ),
            section(
                "reconstructions",
                "Reconstructions",
                lambda: folder.image_sections.blocks("reconstructions", no_images),
            ),
            section(
                "samples",
                "Samples",
                lambda: folder.image_sections.blocks("samples", no_images),
            ),
            charts.latent_section(folder),
            section(
                "errors",
                "Errors and scores",
                lambda: charts.errors(folder),
                lambda: charts.scores(path),
                lambda: folder.image_sections.blocks("errors"),
            ),
            section(
                "rest",
                "More images",
                lambda: folder.image_sections.blocks("charts"),
                lambda: folder.image_sections.blocks("rest"),
            ),
            section("config", "Configuration", lambda: _configuration(folder)),
        ],
    )


def _subtitle(folder: ReportFolder) -> str:
    """One line: the model, the duration and the date."""
    metrics, about = folder.metrics, folder.about
    if folder.evaluation and not folder.config:
        line = f"an evaluation of a model with {folder.setting.get('latent_dim')} latent dimensions"
    else:
        line = f"a VAE with {folder.config.get('latent_dim', '?')} latent dimensions"
        if metrics:
            line += f", trained for {metrics.get('epochs', '?')} epochs in {duration(metrics.get('seconds'))}"
    if about.get("device"):
        line += f" on {about['device']}"
    if about.get("started"):
        line += f", {datetime.fromisoformat(str(about['started'])):%d %B %Y, %H:%M}"
    return line


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else "?"


def duration(seconds: Any) -> str:
    """A duration in seconds, minutes or hours."""
    if not isinstance(seconds, int | float):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _unit_of(folder: ReportFolder) -> str:
    return str(folder.metrics.get("unit") or folder.evaluation.get("protocol", {}).get("unit") or "")


def _tiles(folder: ReportFolder) -> list[tuple[str, str, str]]:
    """The most important metrics."""
    tiles = []
    measured = folder.evaluation.get("metrics", {})
    best = [name for name in measured if name.startswith("likelihood/test/log_likelihood")]
    if best:
        metric = _metric(measured[best[-1]])
        value, error = formatted(metric)
        tiles.append((f"bound on log p(x), {best[-1].rpartition(', ')[2]}", value, f"{error} {metric.unit}".strip()))
    for term in ("elbo", "reconstruction", "kl"):
        name = f"test/{term}"
        value = folder.metrics.get(name, measured.get(name, {}).get("value"))
        if isinstance(value, float):
            title = f"test {curves.title_of(term)}"
            tiles.append((title, f"{value:,.2f}", term_unit(name, _unit_of(folder))))
    for name, title in (("samples/frechet_distance", "Fréchet distance"), ("reconstructions/psnr", "PSNR")):
        if name in measured:
            metric = _metric(measured[name])
            tiles.append((title, formatted(metric)[0], metric.unit))
    if folder.metrics.get("parameters"):
        tiles.append(("parameters", _short(folder.metrics["parameters"]), ""))
    return tiles


def _short(number: int) -> str:
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def _summary(folder: ReportFolder) -> list[Block]:
    """The settings, and the results of the training except the terms of the bound."""
    metrics, data = folder.metrics, folder.config.get("data", {})
    results = []
    images = folder.about.get("images", {})
    if images:
        results.append(("images", ", ".join(f"{_count(images[name])} {name}" for name in images)))
    if metrics:
        results += [
            ("epochs", _count(metrics.get("epochs"))),
            ("steps", _count(metrics.get("steps"))),
            ("parameters", _count(metrics.get("parameters"))),
            ("time", duration(metrics.get("seconds"))),
            ("speed", f"{_count(metrics.get('images_per_second'))} images/s"),
            ("tested", str(metrics.get("tested", "?"))),
        ]
    blocks = [Block("facts", {"title": "Settings", "facts": _choices(folder)})]
    if results:
        blocks.append(Block("facts", {"title": "Training" if folder.config else "Data", "facts": results}))
    machine = _machine(folder.about)
    if machine:
        blocks.append(Block("facts", {"title": "Machine and versions", "facts": machine}))
    lines = [Block("columns", {"blocks": blocks})]
    damaged = list(folder.damaged)
    if damaged:
        lines.append(note(f"Damaged, and left out: {', '.join(damaged)}."))
    if folder.config and not metrics and not damaged:
        lines.append(note("There is no metrics.json: this training has not ended."))
    if not folder.config and not folder.evaluation:
        lines.append(note("There is no config.yaml and no evaluation.json that can be read, so this page is short."))
    if data.get("validation") == "test":
        lines.append(note("The validation images are the test images. They select no epoch: the last one is tested."))
    return lines


def _choices(folder: ReportFolder) -> list[tuple[str, str]]:
    """The settings that distinguish this run from others."""
    setting, data = folder.setting, folder.config.get("data", {})
    left_out = ("logger", "callbacks", "accelerator")
    facts = [(str(group), str(option)) for group, option in folder.choices.items() if option and group not in left_out]
    facts.sort(
        key=lambda fact: (TITLE_GROUPS.index(fact[0]) if fact[0] in TITLE_GROUPS else len(TITLE_GROUPS), fact[0])
    )
    facts.append(("latent_dim", str(setting.get("latent_dim", "?"))))
    if setting.get("conditional"):
        facts.append(("conditional", "true"))
    binarize = data.get("binarize", setting.get("binarize"))
    if binarize is not None:
        facts.append(("data.binarize", str(binarize)))
    if "optimizer" in folder.config and isinstance(folder.config["optimizer"], dict):
        facts.append(("optimizer.lr", str(folder.config["optimizer"].get("lr"))))
    facts += [("batch size", str(data["batch_size"]))] if "batch_size" in data else []
    return facts + ([("seed", str(setting["seed"]))] if "seed" in setting else [])


def _machine(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not about:
        return []
    machine = about.get("machine", {})
    facts = [("device", f"{about.get('device')}, {about.get('precision')}")]
    if machine.get("processor"):
        facts.append(("processor", str(machine["processor"])))
        facts.append(("threads", f"{machine.get('threads')} on {machine.get('cores')} cores"))
    facts.append(("system", str(machine.get("system"))))
    versions = about.get("versions", {})
    if versions:
        facts.append(("versions", ", ".join(f"{name} {number}" for name, number in versions.items())))
    facts += [("commit", str(about["commit"]))] if about.get("commit") else []
    return facts


def command_of(script: str, overrides: Sequence[Any], *options: str) -> str:
    """A command line for a shell."""
    return " ".join(["python", f"src/{script}.py", *options, *(shlex.quote(str(word)) for word in overrides)])


def _commands(folder: ReportFolder) -> list[Block]:
    """The command lines that repeat the run, and the path of the model."""
    blocks: list[Block] = []
    if "overrides" in folder.config:
        command = command_of("train", folder.config["overrides"] or [])
        blocks.append(Block("command", {"title": "Train again", "command": command}))
        if folder.config.get("ckpt_path"):
            blocks.append(note(f"This training resumed {folder.config['ckpt_path']}, which the command needs again."))
    protocol = folder.evaluation.get("protocol", {})
    if "overrides" in protocol:
        command = command_of("evaluate", protocol["overrides"] or [])
        blocks.append(Block("command", {"title": "Evaluate again", "command": command}))
    if protocol.get("checkpoint"):
        checkpoint = Path(str(protocol["checkpoint"]))
        report = checkpoint.parent.parent / NAME
        path = Path(os.path.relpath(report.resolve(), folder.path.resolve())).as_posix()
        link = {"href": address(path), "link": "the report of its training"}
        found = link if report.is_file() and not folder.config else {}
        blocks.append(Block("note", {"text": f"The model: {checkpoint}{';' if found else ''}", **found}))
    if not blocks:
        raise NotApplicable("The command is not known: there is no config.yaml that can be read.")
    return blocks


def _metrics(folder: ReportFolder) -> list[Block]:
    """The terms of the bound on test and validation images."""
    metrics = folder.metrics
    if not metrics:
        raise NotApplicable("There are no metrics of the training: metrics.json holds none.")
    unit = _unit_of(folder)
    present = [name.partition("/")[2] for name in metrics if name.startswith("test/")]
    terms = [*(term for term in _TERMS if term in present), *(term for term in present if term not in _TERMS)]
    rows = []
    for term in terms:
        values = [metrics.get(f"{split}/{term}") for split in ("test", "val")]
        shown = [Cell(f"{value:,.3f}" if isinstance(value, float) else "-") for value in values]
        rows.append([Cell(curves.title_of(term)), *shown, Cell(term_unit(f"test/{term}", unit))])
    images = folder.about.get("images", {})
    of = f" Tested: {metrics.get('tested')}, on {images['test']:,} images." if "test" in images else ""
    lines = [table(["per image", "test", "validation", "unit"], rows, "metrics", numeric=("test", "validation"))]
    lines.append(note(f"{_SUMS}{of}"))
    if unit == NOT_NATS:
        lines.append(note(NOT_NATS_NOTE))
    return lines


def _metric(values: Mapping[str, Any]) -> Metric:
    return Metric(values["value"], values.get("unit", ""), values.get("standard_error"), values.get("note", ""))


def _measurements(folder: ReportFolder) -> list[Block]:
    """The metrics of ``evaluate.py``, with standard errors and protocols."""
    if not folder.evaluation:
        return []
    groups: dict[str, list[list[Cell]]] = {}
    for name, values in folder.evaluation["metrics"].items():
        measure, _, rest = name.partition("/")
        if values.get("value") is None:
            shown = [Cell("not finite"), Cell("")]
        else:
            value, error = formatted(_metric(values))
            shown = [Cell(value), Cell(f"{error} {values.get('unit', '')}".strip())]
        row = [Cell(rest.replace("_", " ")), *shown, Cell(str(values.get("note", "")))]
        groups.setdefault(measure, []).append(row)
    columns = ["metric", "value", "± and unit", "protocol"]
    blocks = [
        table(columns, rows, "measured", numeric=("value",), title="terms of the bound" if name == "test" else name)
        for name, rows in groups.items()
    ]
    remarks = [str(remark) for remark in folder.evaluation.get("remarks", [])]
    if folder.evaluation.get("protocol", {}).get("unit") == NOT_NATS:
        remarks.append(NOT_NATS_NOTE)
    line = "±: standard error of the mean over images, unless the protocol names another error."
    return [*blocks, note(line), *map(note, remarks)]


def _curves(folder: ReportFolder) -> list[Block]:
    blocks = curves.of_run(folder.metrics_csv, folder.metrics)
    folder.image_sections.replace("curves")
    return blocks


def _configuration(folder: ReportFolder) -> list[Block]:
    blocks = []
    for path in (folder.config_file, folder.evaluation_file):
        if text := folder.text(path):
            name = path.name
            if path == folder.evaluation_file and folder.evaluation:
                text = OmegaConf.to_yaml(OmegaConf.create({"protocol": folder.evaluation.get("protocol", {})}))
                name = f"protocol of {path.name}"
            blocks.append(Block("file", {"name": name, "text": text}))
    if not blocks:
        raise NotApplicable("There is no config.yaml.")
    return blocks
