"""The figures of a trained model, from its checkpoint alone: what ``evaluate.py`` runs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich import get_console

from vaelab.commands import ranking
from vaelab.commands.config_validation import check_evaluation, listed
from vaelab.data.datamodule import ImageDataModule
from vaelab.evaluation import latent_space, likelihood, out_of_distribution, reconstructions, sample_quality
from vaelab.evaluation.measurement import Measurement
from vaelab.evaluation.out_of_distribution import Against
from vaelab.runs import checkpoint, comparability, provenance, run_folder
from vaelab.runs.metrics import Metric, print_measurements, term_unit
from vaelab.runs.run_folder import RunFolder
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime import console, files, hardware
from vaelab.runtime.console import best_effort
from vaelab.runtime.errors import NotApplicable, UserError
from vaelab.runtime.hardware import keep_freed_memory, set_matmul_precision
from vaelab.runtime.overrides import literal
from vaelab.runtime.random import evaluation_seed
from vaelab.runtime.workarounds.warning_filters import filter_warnings
from vaelab.training.lightning_module import VAEModule
from vaelab.visualization.plots import save_png


def _same_precision(config: dict[str, Any]) -> dict[str, Any]:
    precision = config["trainer"]["precision"]
    if str(precision).startswith("16") and not torch.cuda.is_available():
        precision = "32-true"  # float16 is for GPUs
    return {"accelerator": "auto", "devices": 1, "precision": precision}


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Tests a checkpoint as the end of its training did, measures what is asked for, and stores the figures.

    Every measure draws from the same seed, so that it comes to the same with and without the others; on the same kind
    of device and in the same precision the test figures are those of the training.

    Args:
        cfg: what ``configs/evaluate.yaml`` composes.

    Returns:
        What is in ``evaluation.json``; of a folder of runs, that of each by its name.

    Raises:
        UserError: there is no such checkpoint, or it is no checkpoint of this project, or a setting is impossible.
    """
    return evaluate_checked(cfg, check_evaluation(cfg))


def evaluate_checked(cfg: DictConfig, wanted: list[str]) -> dict[str, Any]:
    """What :func:`evaluate` does with settings that are checked already, of which these measures are wanted."""
    filter_warnings()
    keep_freed_memory()
    set_matmul_precision(cfg.matmul_precision)
    with evaluation_seed(torch.device("cpu")):  # building a model draws weights, though others are loaded into it
        runs = run_folder.runs_in(cfg.run)
        if runs:
            return _evaluate_all(cfg, wanted, runs)
        return _evaluate(cfg, wanted, checkpoint.find(cfg.run), Path(cfg.run_dir))


def _evaluate_all(cfg: DictConfig, wanted: list[str], runs: dict[str, Path]) -> dict[str, Any]:
    """The figures of several runs, and one table of them; those that cannot be evaluated are named there."""
    run_dir = Path(cfg.run_dir)
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    try:
        for number, (name, folder) in enumerate(runs.items(), 1):
            console.print_line(f"[bold]{number} of {len(runs)}: {name}[/bold]")
            try:
                found[name] = _evaluate(cfg, wanted, checkpoint.find(folder), run_dir / name)
            except UserError as error:
                failed[name] = str(error)
    finally:  # of Ctrl-C, say, those that are done
        ranking.write_results(found, failed, run_dir)
    if found and cfg.report:
        from vaelab.visualization import report

        with best_effort(report.NAME):
            console.print_line(f"report: {console.short_path(report.write(run_dir))}")
    if not found:
        raise UserError(f"none of the {len(runs)} runs in {cfg.run} could be evaluated: {next(iter(failed.values()))}")
    return found


def _evaluate(cfg: DictConfig, wanted: list[str], path: Path, folder: Path) -> dict[str, Any]:
    """One checkpoint's figures, in files of its own."""
    saved = checkpoint.rebuild(path)
    vae, config = saved.vae, saved.config
    datamodule: ImageDataModule = checkpoint.rebuild_data(config, path, cfg.data_dir)
    trainer = L.Trainer(
        **(cfg.trainer or _same_precision(config)),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    tested = trainer.test(VAEModule(vae, saved.objective), datamodule, verbose=False)[0]
    folder.mkdir(parents=True, exist_ok=True)
    vae.to(trainer.strategy.root_device).float().eval()
    model = TrainedModel.of(saved, datamodule)
    of = f"{model.protocol('test', len(datamodule.splits['test'].images))}, {trainer.precision}"
    metrics = {name: Metric(float(value), term_unit(name, model.unit), None, of) for name, value in tested.items()}
    protocol = _protocol(cfg, path, config, model)
    evaluation: dict[str, Any] = {"protocol": protocol, "metrics": {}, "arrays": {}, "remarks": []}
    remarks: list[str] = []

    def keep(left: list[str]) -> None:  # what is measured is not lost when the next one fails
        evaluation["metrics"] = {key: metric.as_json() for key, metric in metrics.items()}
        evaluation["remarks"] = [*remarks, *([f"it ended before {', '.join(left)}"] if left else [])]
        files.write_json(evaluation, folder / "evaluation.json")

    measures = _measures(cfg, model, folder)
    try:
        for number, name in enumerate(wanted, 1):
            measurement = _measured(cfg, model, f"{number} of {len(wanted)}: {name}", name, measures[name])
            for key, plot in measurement.plots.items():
                save_png(plot, folder / f"{key}.png")
            metrics |= {f"{name}/{key}": metric for key, metric in measurement.metrics.items()}
            evaluation["arrays"] |= {f"{name}/{key}": values for key, values in measurement.arrays.items()}
            remarks += measurement.remarks
            if left := wanted[number:]:
                keep(left)
    except BaseException:
        if evaluation["metrics"]:
            console.print_line(f"what was measured until then: {console.short_path(folder / 'evaluation.json')}")
        raise
    keep([])
    print_measurements(console.short_path(path), metrics, remarks, model.unit)
    if cfg.report:
        _report(model, trainer, folder)
    console.print_line(f"written to {console.short_path(folder)}")
    return evaluation


def _report(model: TrainedModel, trainer: L.Trainer, folder: Path) -> None:
    """The page of an evaluation, and what it shows."""
    from vaelab.visualization import report
    from vaelab.visualization.report import latent_space

    with best_effort("about.json"):
        provenance.write(
            RunFolder(folder).about_file, f"1 {hardware.device_name(model.device)}", trainer.precision, model.splits
        )
    with best_effort("latents.npz"), evaluation_seed(model.device):
        latent_space.write(model, folder / "latents.npz")
    with best_effort(report.NAME):
        console.print_line(f"report: {console.short_path(report.write(folder))}")


def _measured(
    cfg: DictConfig, model: TrainedModel, title: str, name: str, measure: Callable[[], Measurement]
) -> Measurement:
    """What a measure comes to; of one that does not apply, a remark, unless it was asked for by its name."""
    if not get_console().is_terminal:  # which has a progress bar
        console.print_line(title)
    try:
        with evaluation_seed(model.device):
            torch.manual_seed(cfg.seed)
            return measure()
    except NotApplicable as reason:
        if cfg.what != "all":
            raise UserError(f"what={name}: {reason}") from reason
        return Measurement({}, remarks=[f"no {name}: {reason}"])


def _protocol(cfg: DictConfig, path: Path, config: dict[str, Any], model: TrainedModel) -> dict[str, Any]:
    """What was evaluated, on which images: what a figure has to be quoted with."""
    datamodule = model.datamodule
    named = {"run": path} if cfg.against_run is None else {"run": path, "against_run": checkpoint.find(cfg.against_run)}
    runs = [f"{key}={literal(where.resolve())}" for key, where in named.items()]  # latest is another one soon
    others = [word for word in provenance.task_overrides() if word.partition("=")[0] not in named]
    return {
        "overrides": [*runs, *others],
        "checkpoint": str(path.resolve()),
        "choices": config.get("choices", {}),
        "latent_dim": config.get("latent_dim"),
        "likelihood": config["module"]["vae"]["likelihood"],
        "conditional": model.vae.classes is not None,
        "image_shape": list(model.vae.image_shape),
        "data": datamodule.source.name,
        "binarize": datamodule.binarization,
        "validation": datamodule.validation,
        "seed": cfg.seed,
        "unit": model.unit,
        "comparable": comparability.shared_settings(config, model.is_normalized),
    }


def _measures(cfg: DictConfig, model: TrainedModel, folder: Path) -> dict[str, Callable[[], Measurement]]:
    splits = listed(cfg.likelihood.splits)
    cache_dir = None if cfg.samples.cache_dir is None else Path(cfg.samples.cache_dir).expanduser()
    against, options = _against(cfg, model), cfg.scores
    return {
        "likelihood": partial(likelihood.measure, model, cfg.likelihood.samples, splits, cfg.likelihood.limit),
        "latents": partial(latent_space.measure, model, cfg.latents.limit, cfg.latents.pairs),
        "reconstructions": partial(reconstructions.measure, model, cfg.reconstructions.limit),
        "samples": partial(sample_quality.measure, model, cfg.samples.count, cfg.samples.shown, cache_dir),
        "scores": partial(
            out_of_distribution.measure, model, options.samples, options.limit, options.extremes, folder, against
        ),
    }


def _against(cfg: DictConfig, model: TrainedModel) -> Against | None:
    """The data set to tell from the model's own, with the model of the run that was trained on it, if one was named."""
    if cfg.against_run is not None:
        other = TrainedModel.load(cfg.against_run)
        other.vae.to(model.device)
    elif cfg.against is not None:
        options = OmegaConf.to_container(cfg.against, resolve=True)
        assert isinstance(options, dict)
        own = {"binarize": model.datamodule.binarization, "validation": "test"}
        other = TrainedModel(model.vae, instantiate({**options, **own}, _convert_="all"))
    else:
        return None
    out_of_distribution.check_comparable(model, other)
    return Against(other, cfg.against_run is not None)
