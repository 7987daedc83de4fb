"""Where a training starts, and the checks that protect its folder and its settings."""

import inspect
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from vaelab.data.datamodule import ImageDataModule
from vaelab.runs import checkpoint
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime import console, distributed
from vaelab.runtime.errors import UserError
from vaelab.runtime.files import atomic_write
from vaelab.runtime.overrides import typed
from vaelab.training.lightning_module import VAEModule

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

# The settings that define a training. The others (length, hardware, logging) may change when it is resumed.
_PARTS = ("latent_dim", "conditional", "data", "module.vae", "module.objective", "optimizer", "scheduler", "seed")
# The groups among them, and the prefixes of their settings. If another option is typed, these settings are not listed.
_GROUPS = {
    "data": ("data.",),
    "model": ("module.vae.encoder.", "module.vae.decoder."),
    "loss": ("module.vae.likelihood.",),
    "prior": ("module.vae.prior.",),
    "posterior": ("module.vae.posterior.",),
    "objective": ("module.objective.",),
    "optimizer": ("optimizer.",),
    "scheduler": ("scheduler.",),
}


def starting_point(cfg: DictConfig, run: RunFolder, again: bool) -> Path | None:
    """The checkpoint from which a training is resumed, or ``None`` for a new training.

    Args:
        cfg: of the training; ``ckpt_path`` is set if the job resumes its own run.
        run: its folder.
        again: whether this job was started before; it then resumes its own checkpoint.

    Raises:
        UserError: the folder holds another run.
    """
    if again and any(run.checkpoint(name).is_file() for name in ("last", "best")):
        cfg.ckpt_path = str(run.path)
    path = None if cfg.ckpt_path is None else checkpoint.find(cfg.ckpt_path, prefer="last")
    is_own = path is not None and path.parent == run.checkpoint("last").parent
    if distributed.is_first() and not is_own and run.has_checkpoints:
        raise UserError(
            f"{run.path} already holds a run: resume it with {typed('ckpt_path', console.short_path(run.path))} (and a "
            "larger trainer.max_epochs), or choose another folder"
        )
    return path


def check(module: VAEModule, datamodule: ImageDataModule, trainer: L.Trainer, path: Path) -> int:
    """Refuses a checkpoint from which this training cannot be resumed.

    Args:
        module: with the configuration of the training.
        datamodule: reads its images from now on as at the beginning of the training.
        trainer: with its callbacks.
        path: the checkpoint.

    Returns:
        The optimisation step at which the training is resumed.

    Raises:
        UserError: the settings differ (the line says what to type), or nothing is left to do.
    """
    contents = checkpoint.read(path)
    _check_settings(contents["vaelab"]["config"], module.config, path)
    checkpoint.check_training_state(contents, list(module.parameters()), path)
    _check_length(contents, module.config, path)
    has_stopped = _has_stopped_early(contents, trainer)
    if has_stopped and _is_complete(path):
        raise UserError(
            f"{path} has stopped early after {_epochs(contents)} epochs: type a larger "
            "callbacks.early_stopping.patience"
        )
    checkpoint.load_weights(module, contents, path)  # only for its error message: the trainer loads them again
    trainer.callbacks.insert(0, Resumption(has_stopped))  # type: ignore[attr-defined]  # set by a connector of Lightning
    datamodule.adopt(contents["vaelab"]["config"].get("found", {}))
    console.print_line(f"resuming {console.short_path(path)} after step {contents['global_step']:,}")
    return int(contents["global_step"])


def _check_settings(then: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    options = then.get("choices", {})
    choices = {**options, **config.get("choices", {})}
    groups = [group for group in _GROUPS if group in options and choices[group] != options[group]]
    theirs = tuple(prefix for group in groups for prefix in _GROUPS[group])
    changed, now = dict(_settings(then)), dict(_settings(config))
    other = [f"{group}={options[group]}" for group in groups]
    other += [
        typed(key, value)
        for key, value in changed.items()
        if now.get(key, value) != value and not key.startswith(theirs)
    ]
    other = other or [typed(f"+{key}", changed[key]) for key in sorted(changed.keys() - now.keys())]
    if other:
        more = f" (and {len(other) - 5} more)" if len(other) > 5 else ""
        raise UserError(
            f"{path} was trained with other settings and can be resumed only with those: type "
            f"{' '.join(other[:5])}{more}"
        )
    if extra := sorted(now.keys() - changed.keys()):
        raise UserError(f"{path} was trained without {' '.join(extra[:5])} and can be resumed only so: leave that out")


def _epochs(contents: dict[str, Any]) -> int:
    """The complete epochs of a checkpoint."""
    progress = contents.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {})
    return int(progress.get("current", {}).get("processed", 0))


def _is_complete(path: Path) -> bool:
    """Whether the run of a checkpoint was tested; a checkpoint outside of a run folder counts as complete."""
    own = RunFolder.around(path.resolve())
    return own is None or own.metrics_file.is_file()


def _check_length(contents: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    for noun, done in (("epochs", _epochs(contents)), ("steps", int(contents["global_step"]))):
        limit = config["trainer"][f"max_{noun}"]
        if limit in (None, -1) or done < limit:
            continue
        if done > limit or _is_complete(path):  # else the test is left
            raise UserError(
                f"{path} has been trained for {done} {noun} already: type e.g. trainer.max_{noun}={2 * done}"
            )


def _has_stopped_early(contents: dict[str, Any], trainer: L.Trainer) -> bool:
    """Whether early stopping, with its present settings, had ended this training before its checkpoint."""
    for callback in trainer.early_stopping_callbacks:
        state = contents.get("callbacks", {}).get(callback.state_key, {})
        score = torch.tensor(contents["vaelab"]["metrics"].get(callback.monitor, 0.0))
        reached, diverged = callback.stopping_threshold, callback.divergence_threshold
        if (
            state.get("wait_count", 0) >= callback.patience
            or (callback.check_finite and not score.isfinite())
            or (reached is not None and bool(callback.monitor_op(score, reached)))
            or (diverged is not None and bool(callback.monitor_op(-score, -diverged)))
        ):
            return True
    return False


class Resumption(L.Callback):
    """Resumes the state of callbacks with the settings that are typed now.

    Args:
        is_over: end the training before its first step, because only its test is left.
    """

    def __init__(self, is_over: bool) -> None:
        self.is_over = is_over

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector of Lightning
            state = checkpoint["callbacks"].get(callback.state_key, {})
            if isinstance(callback, ModelCheckpoint):
                continue  # its folder is compared with that of the checkpoint, and its other settings are its key
            for name in state.keys() & inspect.signature(type(callback)).parameters.keys():
                state[name] = getattr(callback, name)  # early stopping has its patience in its state

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = self.is_over

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A checkpoint is written before its epoch counts as completed. If no step is left, Lightning does not count it.
        progress: Any = trainer.fit_loop.epoch_progress.current
        progress.completed = progress.processed


def keep(path: Path, run: RunFolder) -> None:
    """Copies a checkpoint after which no step is left into the run folder, unless the folder has one."""
    if run.checkpoint("last").is_file():
        return
    with path.open("rb") as file, atomic_write(run.checkpoint("last"), is_durable=True) as copy:
        shutil.copyfileobj(file, copy)


def finished_metrics(run: RunFolder, config: dict[str, Any]) -> dict[str, Any] | None:
    """The final metrics of a complete run; ``None`` if something is left to train.

    Args:
        run: the folder of a job, from an earlier attempt at the same sweep.
        config: of the job that has this folder now.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    then = run.config
    was, now = (dict(_settings(settings)) for settings in (then, config))
    other = [typed(key, value) for key, value in was.items() if now.get(key, value) != value]
    if other or was.keys() != now.keys():
        raise UserError(
            f"{run.path} holds a run with other settings, {' '.join(other[:5])}: choose another hydra.sweep.dir, or "
            "the same sweep"
        )
    same_length = all(then["trainer"].get(key) == config["trainer"][key] for key in ("max_epochs", "max_steps"))
    return run.metrics or None if same_length else None


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for part in _PARTS:
        node: Any = config
        for key in part.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        yield from _flat(part, node)


def _flat(prefix: str, node: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        moved = {f"data.source.{key}" for key in checkpoint.DATA_PATHS}  # the files may be in another place now
        copies = {"module.vae.latent_dim", "module.vae.classes"}  # of other settings
        if prefix not in moved | copies | {"optimizer.fused"}:  # the last one depends on the device
            yield prefix, node
        return
    for key, value in node.items():
        yield from _flat(f"{prefix}.{key}", value)


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Locks a run folder, which is made if needed, against other trainings.

    The lock belongs to the operating system, on an open file. It ends with the process, however the process ends.

    Raises:
        UserError: another training has locked the folder, or the folder cannot be written.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        file = run.lock_file.open("a")  # in somebody else's folder it may be a link, whose file stays as it is
    except OSError as error:
        raise UserError(
            f"{run.path} cannot be written ({error.strerror}): type hydra.run.dir=<another folder>"
        ) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another training is writing into {run.path}: wait for its end, or choose another folder"
                ) from error
            except OSError as error:  # some network file systems have no locks
                log.warning(
                    "%s could not be locked (%s): make sure that no other training writes there",
                    run.path,
                    error.strerror,
                )
        yield
