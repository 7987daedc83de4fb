"""One training, from its configuration to its metrics: what ``train.py`` runs."""

import logging
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.profilers import PassThroughProfiler
from omegaconf import DictConfig, OmegaConf

from vaelab.commands.config_validation import check_training
from vaelab.data.datamodule import ImageDataModule
from vaelab.runs import checkpoint, provenance
from vaelab.runs.metrics import bound_unit, print_metrics
from vaelab.runs.run_folder import TITLE_GROUPS, RunFolder
from vaelab.runtime import console, distributed, files, hardware, signals
from vaelab.runtime.console import best_effort
from vaelab.runtime.errors import UserError
from vaelab.runtime.files import write_text
from vaelab.runtime.hardware import flushed_denormals, keep_freed_memory, set_matmul_precision, uses_channels_last
from vaelab.runtime.overrides import typed
from vaelab.runtime.signals import Stopped
from vaelab.runtime.workarounds.warning_filters import filter_warnings
from vaelab.training import loggers, outcome, resume, sanity_check
from vaelab.training.callbacks.checkpoints import AtomicCheckpointIO, Checkpoint
from vaelab.training.callbacks.final_validation import FinalValidation
from vaelab.training.callbacks.graceful_stop import GracefulStop
from vaelab.training.callbacks.latest_link import LatestLink
from vaelab.training.callbacks.timer import Stopwatch
from vaelab.training.lightning_module import VAEModule
from vaelab.training.lightning_workarounds import without_signal_handlers

log = logging.getLogger(__name__)

_TAGS = ("data", "model", "loss", "prior", "posterior", "objective", "experiment")  # of a W&B run
_NOTHING = nullcontext()


class _NoProfiler(PassThroughProfiler):
    """Measures nothing and takes no time: Lightning begins and ends some hundred actions in a step."""

    def profile(self, action_name: str) -> Any:
        return _NOTHING


def train(cfg: DictConfig) -> dict[str, Any]:
    """Trains, validates, tests the best checkpoint, and leaves everything in the run folder.

    Args:
        cfg: as ``configs/train.yaml`` composes it.

    Returns:
        The final metrics, as in ``metrics.json``.

    Raises:
        UserError: the configuration is impossible.
    """
    check_training(cfg)
    return train_checked(cfg)


def train_checked(cfg: DictConfig) -> dict[str, Any]:
    """Trains as :func:`train` does, with settings that are checked already."""
    filter_warnings()
    if cfg.keep_freed_memory:
        keep_freed_memory()
    set_matmul_precision(cfg.matmul_precision)
    run = RunFolder(Path(cfg.run_dir).resolve())
    is_command = signals.is_raised()
    try:
        with (
            signals.raised(),
            flushed_denormals() if cfg.flush_denormals else nullcontext(),
            resume.locked(run) if distributed.is_first() else nullcontext(),
        ):
            again = (_is_sweep() or signals.was_requeued()) and run.config_file.is_file()
            if again and (complete := resume.finished_metrics(run, _resolved(cfg))) is not None:
                console.print_line(f"{console.short_path(run.path)} is complete")
                return complete
            return _train(cfg, run, resume.starting_point(cfg, run, again))
    except Stopped as stopped:
        _tell_stopped(stopped, cfg, run)
        if stopped.signum in signals.requeue_signals():
            _requeue(stopped.signum, run.path)  # after all files are written, because it may end the job at once
            raise SystemExit(0) from None
        if is_command:
            raise
        if stopped.signum == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stopped.signum) from None


def _train(cfg: DictConfig, run: RunFolder, start: Path | None) -> dict[str, Any]:
    """Runs the training, after all checks of the settings have passed.

    Args:
        cfg: of the training.
        run: its folder.
        start: the checkpoint from which it is resumed; ``None`` for a new training.
    """
    stopwatch = Stopwatch()
    _label_wandb_run(cfg)
    _unfuse_optimizer(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule: ImageDataModule = instantiate(cfg.data, _convert_="all")
    module: VAEModule = instantiate(cfg.module, _convert_="all")
    module.config = _resolved(cfg)
    if uses_channels_last(cfg.channels_last, str(cfg.trainer.precision)):
        module.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    if cfg.compile:
        module.compile_steps("default" if cfg.compile is True else cfg.compile)
    stop = GracefulStop(run.checkpoint("last"))
    trainer = _trainer(cfg, stopwatch, LatestLink(run.path), stop, FinalValidation())
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, Checkpoint):
            callback.resumed_from = start
    first_step = 0 if start is None else resume.check(module, datamodule, trainer, start)
    before = None if start is None else RunFolder.around(start)
    for logger in trainer.loggers:
        if isinstance(logger, loggers.CSVLogger):
            logger.resume(first_step, None if before is None else before.metrics_csv)
    datamodule.prepare_data()
    datamodule.setup()
    if datamodule.found:
        module.config["found"] = datamodule.found
    sanity_check.check_one_batch(cfg, module, datamodule)

    status = "failed"
    try:
        if trainer.is_global_zero:
            _introduce(cfg, datamodule, module, trainer, run)
        if trainer.world_size > 1:
            module.generators = {"cpu": torch.get_rng_state()}
            sanity_check.freeze_untrained(module, datamodule)
        without_signal_handlers(trainer)
        distributed.check_rank(trainer)
        with distributed.process_group(trainer, None if start is None else str(start)):
            trainer.fit(module, datamodule, ckpt_path=start)
            if start is not None and trainer.is_global_zero and trainer.global_step == first_step:
                resume.keep(start, run)
            if stop.agree(trainer):  # the signal came while the last epoch ended
                raise Stopped(stop.asked)
            signals.check()
            outcome.check_steps(trainer, module)
            tested = _test(cfg, trainer, module, datamodule)
        final = {
            **tested,
            "unit": bound_unit(module.vae.likelihood.is_normalized(datamodule.is_binary)),
            "parameters": _count_parameters(module),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(stopwatch.elapsed, 2),
            "images_per_second": round(stopwatch.images / max(stopwatch.seconds, 1e-9), 1),
        }
        signals.check()
        if trainer.is_global_zero:
            loggers.log_final(trainer.loggers, final)
            _write_results(final, trainer, datamodule, run, cfg.report)
        status = "success"
        return final
    except Stopped as stopped:
        status, stopped.when = "stopped", f" after step {trainer.global_step:,}"
        raise
    finally:
        loggers.finish(trainer.loggers, status)


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration with all references resolved, in plain containers, and the choices that led to it."""
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    source = plain["data"]["source"]
    for key in checkpoint.DATA_PATHS:  # a checkpoint is used from any working directory
        if source.get(key) is not None:
            source[key] = str(Path(source[key]).expanduser().absolute())
    return {"choices": provenance.choices(), **{str(key): value for key, value in plain.items()}}


def _is_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _label_wandb_run(cfg: DictConfig) -> None:
    """Tags the W&B run with its choices. The runs of a sweep form one group, unless the user has named another."""
    wandb = cfg.logger.get("wandb")
    if wandb is None:
        return
    chosen = provenance.choices()
    wandb.tags = [*wandb.tags, *(f"{group}={chosen[group]}"[:64] for group in _TAGS if group in chosen)]
    if _is_sweep():
        sweep = Path(HydraConfig.get().sweep.dir).name
        wandb.group = wandb.group or sweep
        wandb.name = wandb.name or f"{sweep}-{HydraConfig.get().job.num}"


def _tell_stopped(stopped: Stopped, cfg: DictConfig, run: RunFolder) -> None:
    """Prints what has ended the training, and what to type to resume it; of a sweep, the command prints the rest."""
    resumable = run.path if run.has_checkpoints else cfg.ckpt_path
    if _is_sweep():
        hint = ""
    elif resumable is None:
        hint = ": there is no checkpoint yet"
    else:
        hint = f": resume with {typed('ckpt_path', console.short_path(Path(resumable)))} and the same settings"
    console.print_line(f"stopped by {stopped}{stopped.when}{hint}")
    stopped.is_told = not _is_sweep()


def _requeue(signum: int, run_dir: Path) -> None:
    """Has this job started again by the scheduler; it then resumes in its folder, if its command line names that."""
    if not distributed.is_first():
        return
    failure = signals.requeue(signum)
    if failure is not None:
        where = typed("hydra.sweep.dir", HydraConfig.get().sweep.dir) if _is_sweep() else typed("ckpt_path", run_dir)
        raise UserError(f"the job could not be queued again ({failure}): start it with {where}")
    console.print_line(f"queued again: a job with {typed('hydra.run.dir', console.short_path(run_dir))} resumes there")


def _unfuse_optimizer(cfg: DictConfig) -> None:
    """Turns a fused optimiser off if gradients are clipped in mixed precision, which Lightning refuses with it."""
    if cfg.trainer.gradient_clip_val and "mixed" in str(cfg.trainer.precision) and cfg.optimizer.get("fused"):
        log.info("optimizer.fused is off: Lightning does not clip gradients in mixed precision with it")
        cfg.optimizer.fused = False


def _count_parameters(module: VAEModule) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _trainer(cfg: DictConfig, *callbacks: L.Callback) -> L.Trainer:
    """The trainer with the callbacks and loggers of the configuration, and the given callbacks."""
    # An experiment may set up a callback that callbacks=none removes: such settings have no target.
    configured = [instantiate(node, _convert_="all") for node in cfg.callbacks.values() if node and "_target_" in node]
    if cfg.data.validation == "test":  # no epoch is chosen by test images: the last one is tested
        configured = [c for c in configured if not (isinstance(c, ModelCheckpoint) and c.monitor)]
    run_loggers = [instantiate(node, _convert_="all") for node in cfg.logger.values() if node]
    return instantiate(
        cfg.trainer,
        callbacks=[*callbacks, *configured],
        plugins=[AtomicCheckpointIO()],
        profiler=cfg.trainer.profiler or _NoProfiler(),
        logger=run_loggers or False,
        enable_progress_bar=False,
        _convert_="all",
    )


def _test(cfg: DictConfig, trainer: L.Trainer, module: VAEModule, datamodule: ImageDataModule) -> dict[str, Any]:
    """Test and validation metrics of the best checkpoint; of the last weights if no checkpoint is the best."""
    watched = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    best = next((callback for callback in watched if callback.monitor and callback.best_model_path), None)
    if best:
        validated = checkpoint.read(Path(best.best_model_path))["vaelab"]["metrics"]
    elif module.restored:
        validated = module.restored["metrics"]
    else:
        validated = {name: float(value) for name, value in trainer.callback_metrics.items()}
    outcome.check_metric(cfg.monitor, validated, trainer)
    tested = trainer.test(module, datamodule, ckpt_path=best.best_model_path if best else None, verbose=False)
    metrics = {name: float(value) for name, value in tested[0].items()} if tested else {}
    outcome.check_metric(cfg.monitor.replace("val/", "test/", 1), metrics, trainer)
    return {
        **metrics,
        **{name: value for name, value in validated.items() if name.startswith("val/")},
        "tested": "the best epoch on validation images" if best else "the last epoch",
    }


def _introduce(
    cfg: DictConfig, datamodule: ImageDataModule, module: VAEModule, trainer: L.Trainer, run: RunFolder
) -> None:
    """Writes the configuration, and prints what is trained, on which images and devices."""
    run.path.mkdir(parents=True, exist_ok=True)
    run.metrics_file.unlink(missing_ok=True)  # of fewer epochs: the run is not complete until it is written again
    configuration = OmegaConf.create({"overrides": provenance.task_overrides(), **module.config})
    write_text(OmegaConf.to_yaml(configuration), run.config_file)
    parameters = _count_parameters(module)
    chosen = provenance.choices()
    flat = {**chosen, "latent_dim": cfg.latent_dim, "seed": cfg.seed, "parameters": parameters}
    loggers.log_configuration(trainer.loggers, flat, module.config)
    title = " ".join(f"{name}={chosen[name]}" for name in TITLE_GROUPS if name in chosen)
    devices = f"{trainer.world_size} {hardware.device_name(trainer.strategy.root_device)}"
    with best_effort(run.about_file.name):
        provenance.write(run.about_file, devices, trainer.precision, datamodule.splits)
    console.print_line(
        f"[bold]{title} latent_dim={cfg.latent_dim}[/bold]\n{parameters:,} parameters on {devices} "
        f"in {trainer.precision}; {_count(trainer, datamodule, 'train', 'images to train with')}, "
        f"{_count(trainer, datamodule, 'val', 'to validate on')}"
        f"{' (the test images)' if datamodule.validation == 'test' else ''}"
    )


def _write_results(
    final: dict[str, Any],
    trainer: L.Trainer,
    datamodule: ImageDataModule,
    run: RunFolder,
    has_report: bool,
) -> None:
    """Prints the final metrics, and writes them and the report."""
    title = f"{datamodule.source.name}: {final['tested']}, on {_count(trainer, datamodule, 'test', 'test images')}"
    shown = {name: value for name, value in final.items() if name == "val/elbo" or "val/" not in name}
    print_metrics(title, shown, final["unit"])
    if has_report:
        from vaelab.visualization import report

        with best_effort(run.report_file.name):
            console.print_line(f"report: {console.short_path(report.write(run.path, final))}")
    files.write_json(final, run.metrics_file)  # last: a run without this file is not complete, and can be resumed
    console.print_line(f"run folder: {console.short_path(run.path)}")


def _count(trainer: L.Trainer, datamodule: ImageDataModule, split: str, noun: str) -> str:
    """The number of images of a split, and the setting that limits its batches, if there is one."""
    limit = getattr(trainer, f"limit_{split}_batches")
    limited = "" if limit == 1.0 and isinstance(limit, float) else f" (trainer.limit_{split}_batches={limit})"
    return f"{len(datamodule.splits[split].images):,} {noun}{limited}"
