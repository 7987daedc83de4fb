"""Computes the metrics of a trained model from its checkpoint: what ``evaluate.py`` runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich import get_console

from vaelab.commands import ranking
from vaelab.commands.config_validation import PRECISIONS, check_evaluation, listed
from vaelab.data.datamodule import ImageDataModule
from vaelab.evaluation import latent_space, likelihood, out_of_distribution, reconstructions, sample_quality
from vaelab.evaluation.measurement import Measurement
from vaelab.evaluation.out_of_distribution import Against
from vaelab.runs import checkpoint, comparability, provenance, run_folder
from vaelab.runs.foreign_files import shown
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
    """Settings of a trainer on one device in the precision of the training, if this machine has it."""
    precision = str((config.get("trainer") or {}).get("precision") or "32-true")
    if precision not in PRECISIONS:
        raise UserError(
            f"the checkpoint names an unknown precision, {shown(precision)}: type +trainer.precision=32-true"
        )
    if precision.startswith("16") and not torch.cuda.is_available():
        precision = "32-true"  # float16 needs a GPU
    return {"accelerator": "auto", "devices": 1, "precision": precision}


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Tests a checkpoint as the end of its training does, runs the chosen measures, and writes the metrics.

    Each measure starts from the same seed, so its results do not depend on the other measures. The test metrics equal
    those of the training on the same kind of device in the same precision.

    Args:
        cfg: as ``configs/evaluate.yaml`` composes it.

    Returns:
        The contents of ``evaluation.json``; for a folder of runs, those of each run by its name.

    Raises:
        UserError: there is no such checkpoint, it is from another program, or a setting is invalid.
    """
    return evaluate_checked(cfg, check_evaluation(cfg))


def evaluate_checked(cfg: DictConfig, wanted: list[str]) -> dict[str, Any]:
    """Evaluates as :func:`evaluate` does, with settings that are checked already and the chosen measures."""
    filter_warnings()
    keep_freed_memory()
    set_matmul_precision(cfg.matmul_precision)
    with evaluation_seed(torch.device("cpu")):  # a model draws random weights before the saved ones are loaded
        runs = run_folder.runs_in(cfg.run)
        if runs:
            return _evaluate_all(cfg, wanted, runs)
        return _evaluate(cfg, wanted, checkpoint.find(cfg.run), Path(cfg.run_dir))


def _evaluate_all(cfg: DictConfig, wanted: list[str], runs: dict[str, Path]) -> dict[str, Any]:
    """Evaluates several runs, and writes one table of them. It names runs that cannot be evaluated."""
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
    finally:  # after Ctrl-C, the table of the complete evaluations
        ranking.write_results(found, failed, run_dir)
    if found and cfg.report:
        from vaelab.visualization import report

        with best_effort(report.NAME):
            console.print_line(f"report: {console.short_path(report.write(run_dir))}")
    if not found:
        raise UserError(f"none of the {len(runs)} runs in {cfg.run} could be evaluated: {next(iter(failed.values()))}")
    return found


@dataclass
class _Results:
    """The results of one evaluation.

    Attributes:
        path: of the JSON file.
        protocol: how it was evaluated, see :func:`_protocol`.
        metrics, arrays: by the name of the measure and their own name.
        remarks: of the measures.
    """

    path: Path
    protocol: dict[str, Any]
    metrics: dict[str, Metric]
    arrays: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    is_written: bool = False

    def add(self, name: str, measurement: Measurement) -> None:
        """Adds the results of a measure, and writes its images."""
        for key, image in measurement.plots.items():
            save_png(image, self.path.with_name(f"{key}.png"))
        self.metrics |= {f"{name}/{key}": metric for key, metric in measurement.metrics.items()}
        self.arrays |= {f"{name}/{key}": values for key, values in measurement.arrays.items()}
        self.remarks += measurement.remarks

    def write(self, remaining: Sequence[str] = ()) -> dict[str, Any]:
        """Writes the file, and returns its contents.

        Args:
            remaining: measures that have not run yet. They are named in the file until it is written again.
        """
        contents = {
            "protocol": self.protocol,
            "metrics": {key: metric.as_json() for key, metric in self.metrics.items()},
            "arrays": self.arrays,
            "remarks": [*self.remarks, *([f"it ended before {', '.join(remaining)}"] if remaining else [])],
        }
        files.write_json(contents, self.path)
        self.is_written = True
        return contents


def _evaluate(cfg: DictConfig, wanted: list[str], path: Path, folder: Path) -> dict[str, Any]:
    """Evaluates one checkpoint, and writes its files into a folder of its own."""
    saved = checkpoint.rebuild(path)
    model, trainer, tested = _test(cfg, saved, path)
    folder.mkdir(parents=True, exist_ok=True)
    results = _Results(RunFolder(folder).evaluation_file, _protocol(cfg, path, saved.config, model), tested)
    measures = _measures(cfg, model, folder)
    try:
        for number, name in enumerate(wanted, 1):
            title = f"{number} of {len(wanted)}: {name}"
            results.add(name, _measure(cfg, model, title, name, measures[name]))
            if remaining := wanted[number:]:
                results.write(remaining)  # so that an error in the next measure does not lose this one
    except BaseException:
        if results.is_written:
            console.print_line(f"measured before the error: {console.short_path(results.path)}")
        raise
    contents = results.write()
    print_measurements(console.short_path(path), results.metrics, results.remarks, model.unit)
    if cfg.report:
        _report(model, trainer, folder)
    console.print_line(f"written to {console.short_path(folder)}")
    return contents


def _test(
    cfg: DictConfig, saved: checkpoint.SavedModel, path: Path
) -> tuple[TrainedModel, L.Trainer, dict[str, Metric]]:
    """Computes the test metrics of a checkpoint as the end of a training does.

    Returns:
        The model on the device of the trainer, the trainer, and the metrics by name.
    """
    datamodule: ImageDataModule = checkpoint.rebuild_data(saved.config, path, cfg.data_dir)
    trainer = L.Trainer(
        **(cfg.trainer or _same_precision(saved.config)),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    tested = trainer.test(VAEModule(saved.vae, saved.objective), datamodule, verbose=False)[0]
    saved.vae.to(trainer.strategy.root_device).float().eval()
    model = TrainedModel.of(saved, datamodule)
    note = f"{model.protocol('test', len(datamodule.splits['test'].images))}, {trainer.precision}"
    metrics = {name: Metric(float(value), term_unit(name, model.unit), None, note) for name, value in tested.items()}
    return model, trainer, metrics


def _report(model: TrainedModel, trainer: L.Trainer, folder: Path) -> None:
    """Writes the report of an evaluation, and the files that it shows."""
    from vaelab.visualization import report
    from vaelab.visualization.report import latent_space

    files = RunFolder(folder)
    with best_effort(files.about_file.name):
        provenance.write(files.about_file, f"1 {hardware.device_name(model.device)}", trainer.precision, model.splits)
    with best_effort(files.latents_file.name), evaluation_seed(model.device):
        latent_space.write(model, files.latents_file)
    with best_effort(files.report_file.name):
        console.print_line(f"report: {console.short_path(report.write(folder))}")


def _measure(
    cfg: DictConfig, model: TrainedModel, title: str, name: str, measure: Callable[[], Measurement]
) -> Measurement:
    """Runs a measure.

    If the measure does not apply to this model, the result is a remark.

    Raises:
        UserError: the user has chosen a measure that does not apply.
    """
    if not get_console().is_terminal:  # on a terminal there is a progress bar
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
    """The protocol of an evaluation: the model, the images and the settings with which its metrics are quoted."""
    datamodule = model.datamodule
    named = {"run": path} if cfg.against_run is None else {"run": path, "against_run": checkpoint.find(cfg.against_run)}
    runs = [
        f"{key}={literal(where.resolve())}" for key, where in named.items()
    ]  # `latest` changes with the next training
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
        "comparable": comparability.shared_settings(config, model.is_normalized, tests_all=True),
    }


def _measures(cfg: DictConfig, model: TrainedModel, folder: Path) -> dict[str, Callable[[], Measurement]]:
    """The measures by name, with their settings."""
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
    """The other data set for the scores, with the model that was trained on it if the user names its run."""
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
