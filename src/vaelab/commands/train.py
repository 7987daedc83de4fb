"""One training from its configuration to its figures: what ``train.py`` runs."""

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
from vaelab.runs import checkpoint, metrics, provenance
from vaelab.runtime import console, distributed, files, hardware
from vaelab.runtime.console import best_effort
from vaelab.runtime.errors import UserError
from vaelab.runtime.files import write_text
from vaelab.runtime.hardware import flushed_denormals, keep_freed_memory, set_matmul_precision, uses_channels_last
from vaelab.runtime.overrides import typed
from vaelab.runtime.workarounds.warning_filters import filter_warnings
from vaelab.training import loggers, resume, sanity_check
from vaelab.training.callbacks.checkpoints import AtomicCheckpointIO, Checkpoint
from vaelab.training.callbacks.final_validation import FinalValidation
from vaelab.training.callbacks.graceful_stop import GracefulStop, Stopped, requeue, requeue_signals, was_requeued
from vaelab.training.callbacks.latest_link import LatestLink
from vaelab.training.callbacks.timer import Stopwatch
from vaelab.training.lightning_module import VAEModule

log = logging.getLogger(__name__)


_TAGS = ("data", "model", "loss", "prior", "posterior", "objective", "experiment")  # of a W&B run


class _Unprofiled(PassThroughProfiler):
    """Times nothing, and takes no time for it: Lightning begins and ends some hundred actions in a step."""

    def profile(self, action_name: str) -> Any:
        return _NOTHING


_NOTHING = nullcontext()


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration with everything resolved, in plain containers, and the choices that led to it."""
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    source = plain["data"]["source"]
    for key in checkpoint.DATA_PATHS:  # a checkpoint is used from anywhere
        if source.get(key) is not None:
            source[key] = str(Path(source[key]).expanduser().absolute())
    return {"choices": provenance.choices(), **{str(key): value for key, value in plain.items()}}


def _is_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _label(cfg: DictConfig) -> None:
    """A W&B run has its choices as tags; under ``-m`` the runs of a sweep are one group, unless the user named one."""
    wandb = cfg.logger.get("wandb")
    if wandb is None:
        return
    chosen = provenance.choices()
    wandb.tags = [*wandb.tags, *(f"{group}={chosen[group]}"[:64] for group in _TAGS if group in chosen)]
    if _is_sweep():
        sweep = Path(HydraConfig.get().sweep.dir).name
        wandb.group = wandb.group or sweep
        wandb.name = wandb.name or f"{sweep}-{HydraConfig.get().job.num}"


def train(cfg: DictConfig) -> dict[str, Any]:
    """Trains, validates, tests the best checkpoint, and leaves everything in the run folder.

    Args:
        cfg: what ``configs/train.yaml`` composes.

    Returns:
        The final figures, as in ``metrics.json``.

    Raises:
        UserError: the configuration asks for what cannot be.
    """
    filter_warnings()
    check_training(cfg)
    if cfg.keep_freed_memory:
        keep_freed_memory()
    set_matmul_precision(cfg.matmul_precision)
    run_dir = Path(cfg.run_dir).resolve()
    try:
        with (
            flushed_denormals() if cfg.flush_denormals else nullcontext(),
            resume.locked(run_dir) if distributed.is_first() else nullcontext(),
        ):
            again = (_is_sweep() or was_requeued()) and (run_dir / "config.yaml").is_file()
            if again and (complete := resume.finished_metrics(run_dir, _plain(cfg))) is not None:
                console.print_line(f"{console.short_path(run_dir)} is complete")
                return complete
            return _train(cfg, run_dir, resume.starting_point(cfg, run_dir, again))
    except Stopped as stopped:
        if stopped.signum in requeue_signals():
            _requeue(stopped.signum, run_dir)  # when all is written: it may end the job at once
            raise SystemExit(0) from None
        if stopped.signum == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stopped.signum) from None


def _train(cfg: DictConfig, run_dir: Path, start: Path | None) -> dict[str, Any]:
    """What is left of a training that nothing speaks against."""
    stopwatch = Stopwatch()
    _label(cfg)
    _unfuse_optimizer(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule: ImageDataModule = instantiate(cfg.data, _convert_="all")
    module: VAEModule = instantiate(cfg.module, _convert_="all")
    module.config = _plain(cfg)
    if uses_channels_last(cfg.channels_last, str(cfg.trainer.precision)):
        module.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    if cfg.compile:
        module.compile_steps("default" if cfg.compile is True else cfg.compile)
    stop = GracefulStop(run_dir / "checkpoints" / "last.ckpt")
    trainer = _trainer(cfg, stopwatch, LatestLink(run_dir), stop, FinalValidation())
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, Checkpoint):
            callback.resumed_from = start
    first_step = 0 if start is None else resume.check(module, start)
    for logger in trainer.loggers:
        if isinstance(logger, loggers.CSVLogger):
            logger.go_on(first_step, None if start is None else start.parent.parent / "metrics.csv")
    datamodule.prepare_data()
    datamodule.setup()
    sanity_check.check_one_batch(cfg, module, datamodule)

    status = "failed"
    try:
        if trainer.is_global_zero:
            _introduce(cfg, datamodule, module, trainer, run_dir)
        if trainer.world_size > 1:
            module.generators = {"cpu": torch.get_rng_state()}
            sanity_check.freeze_untrained(module, datamodule)
        with distributed.process_group(trainer, None if start is None else str(start)):
            trainer.fit(module, datamodule, ckpt_path=start)
            if stop.agree(trainer):  # while the last epoch ended
                raise Stopped(stop.asked)
            tested = _test(trainer, module, datamodule)
        figures = {
            **tested,
            "unit": metrics.unit(module.vae.likelihood.is_normalized(datamodule.is_binary)),
            "parameters": _count_parameters(module),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(stopwatch.elapsed, 2),
            "images_per_second": round(stopwatch.images / max(stopwatch.seconds, 1e-9), 1),
        }
        if trainer.is_global_zero:
            loggers.log_final(trainer.loggers, figures)
            _conclude(figures, trainer, datamodule, module, run_dir, cfg.report)
        status = "success"
        return figures
    except Stopped as stopped:
        if trainer.is_global_zero:
            status = "stopped"
            console.print_line(
                f"stopped by {stopped} after step {trainer.global_step:,}: "
                f"{typed('ckpt_path', console.short_path(run_dir))} and the same settings go on from there"
            )
        raise
    finally:
        loggers.finish(trainer.loggers, status)


def _requeue(signum: int, run_dir: Path) -> None:
    """Has this job started again, which then goes on in its run folder, if that is named on its command line."""
    if not distributed.is_first():
        return
    failure = requeue(signum)
    if failure is not None:
        where = typed("hydra.sweep.dir", run_dir.parent) if _is_sweep() else typed("ckpt_path", run_dir)
        raise UserError(f"the job could not be queued again ({failure}): start it with {where}")
    console.print_line(f"queued again: a job with {typed('hydra.run.dir', console.short_path(run_dir))} goes on there")


def _unfuse_optimizer(cfg: DictConfig) -> None:
    """Lightning does not clip gradients in mixed precision where the optimiser is fused."""
    if cfg.trainer.gradient_clip_val and "mixed" in str(cfg.trainer.precision) and cfg.optimizer.get("fused"):
        log.info("optimizer.fused is off: Lightning does not clip gradients in mixed precision with it")
        cfg.optimizer.fused = False


def _count_parameters(module: VAEModule) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _trainer(cfg: DictConfig, *callbacks: L.Callback) -> L.Trainer:
    """The trainer with its configured callbacks and loggers, and these."""
    # An experiment's settings of a callback that was then left out (callbacks=none) have no target.
    configured = [instantiate(node, _convert_="all") for node in cfg.callbacks.values() if node and "_target_" in node]
    if cfg.data.validation == "test":  # no epoch is chosen by test images: the last one is tested
        configured = [c for c in configured if not (isinstance(c, ModelCheckpoint) and c.monitor)]
    run_loggers = [instantiate(node, _convert_="all") for node in cfg.logger.values() if node]
    return instantiate(
        cfg.trainer,
        callbacks=[*callbacks, *configured],
        plugins=[AtomicCheckpointIO()],
        profiler=cfg.trainer.profiler or _Unprofiled(),
        logger=run_loggers or False,
        enable_progress_bar=False,
        _convert_="all",
    )


def _test(trainer: L.Trainer, module: VAEModule, datamodule: ImageDataModule) -> dict[str, Any]:
    """The test and validation figures of the best checkpoint, or of the last weights where there is none."""
    watched = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    best = next((callback for callback in watched if callback.monitor and callback.best_model_path), None)
    validated = (
        checkpoint.read(Path(best.best_model_path))["vaelab"]["metrics"]
        if best
        else module.restored["metrics"]
        if module.restored
        else {name: float(value) for name, value in trainer.callback_metrics.items()}
    )
    tested = trainer.test(module, datamodule, ckpt_path=best.best_model_path if best else None, verbose=False)
    return {
        **({name: float(value) for name, value in tested[0].items()} if tested else {}),
        **{name: value for name, value in validated.items() if name.startswith("val/")},
        "tested": "the best epoch on validation images" if best else "the last epoch",
    }


def _introduce(
    cfg: DictConfig, datamodule: ImageDataModule, module: VAEModule, trainer: L.Trainer, run_dir: Path
) -> None:
    """Writes the configuration where it belongs, and says what is being trained, on what."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "metrics.json").unlink(missing_ok=True)  # of fewer epochs: this is not complete until it is
    configuration = OmegaConf.create({"overrides": provenance.task_overrides(), **module.config})
    write_text(OmegaConf.to_yaml(configuration), run_dir / "config.yaml")
    parameters = _count_parameters(module)
    chosen = provenance.choices()
    flat = {**chosen, "latent_dim": cfg.latent_dim, "seed": cfg.seed, "parameters": parameters}
    loggers.log_configuration(trainer.loggers, flat, module.config)
    what = " ".join(f"{name}={chosen[name]}" for name in ("data", "model", "loss", "objective") if name in chosen)
    where = f"{trainer.world_size} {hardware.device_name(trainer.strategy.root_device)}"
    with best_effort("about.json"):
        provenance.write(run_dir, where, trainer.precision, datamodule.splits)
    console.print_line(
        f"[bold]{what} latent_dim={cfg.latent_dim}[/bold]\n{parameters:,} parameters on {where} "
        f"in {trainer.precision}; {_count(trainer, datamodule, 'train', 'images to train with')}, "
        f"{_count(trainer, datamodule, 'val', 'to validate on')}"
        f"{' (the test images)' if datamodule.validation == 'test' else ''}"
    )


def _conclude(
    figures: dict[str, Any],
    trainer: L.Trainer,
    datamodule: ImageDataModule,
    module: VAEModule,
    run_dir: Path,
    has_report: bool,
) -> None:
    """Writes the final figures and what there is to be seen of the run, and shows them."""
    files.write_json(figures, run_dir / "metrics.json")
    title = f"{datamodule.source.name}: {figures['tested']}, on {_count(trainer, datamodule, 'test', 'test images')}"
    shown = {name: value for name, value in figures.items() if name == "val/elbo" or "val/" not in name}
    metrics.print_metrics(title, shown, module.vae.likelihood.is_normalized(datamodule.is_binary))
    if has_report:
        from vaelab.visualization import report

        with best_effort(report.NAME):
            console.print_line(f"report: {console.short_path(report.write(run_dir))}")
    console.print_line(f"run folder: {console.short_path(run_dir)}")


def _count(trainer: L.Trainer, datamodule: ImageDataModule, split: str, what: str) -> str:
    """How many images a split has, and the setting by which only some of its batches are taken, if there is one."""
    limit = getattr(trainer, f"limit_{split}_batches")
    limited = "" if limit == 1.0 and isinstance(limit, float) else f" (trainer.limit_{split}_batches={limit})"
    return f"{len(datamodule.splits[split].images):,} {what}{limited}"
