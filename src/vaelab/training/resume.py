"""Where a training goes on, and what must hold: it is the same, something is left of it, it has its folder alone."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vaelab.runs import checkpoint
from vaelab.runtime import console, distributed
from vaelab.runtime.errors import UserError
from vaelab.runtime.overrides import typed
from vaelab.training.lightning_module import VAEModule

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

# What makes a training what it is. The rest (how long, on what, what is logged) may change when it goes on.
_PARTS = ("latent_dim", "conditional", "data", "module.vae", "module.objective", "optimizer", "scheduler", "seed")
# The groups among them, and where the values of each are: whoever chooses another option need not be told of those.
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


def starting_point(cfg: DictConfig, run_dir: Path, again: bool) -> Path | None:
    """The checkpoint that the training goes on from, if any; of a job that is started again, its own.

    Raises:
        UserError: the run folder holds another run.
    """
    own = run_dir / "checkpoints"
    if again and any((own / f"{name}.ckpt").is_file() for name in ("last", "best")):
        cfg.ckpt_path = str(run_dir)
    path = None if cfg.ckpt_path is None else checkpoint.find(cfg.ckpt_path, prefer="last")
    if distributed.is_first() and (path is None or path.parent != own) and list(own.glob("*.ckpt")):
        raise UserError(
            f"{run_dir} already holds a run: continue it with {typed('ckpt_path', console.short_path(run_dir))} (and "
            "a larger trainer.max_epochs), or choose another folder"
        )
    return path


def check(module: VAEModule, path: Path) -> int:
    """Refuses a checkpoint that this training cannot go on from.

    Args:
        module: with the training's configuration.
        path: the checkpoint.

    Returns:
        The step at which it goes on.

    Raises:
        UserError: with the settings to type.
    """
    contents = checkpoint.read(path)
    _check_settings(contents, module.config, path)
    checkpoint.load_weights(module, contents, path)  # for its message: the trainer loads them again
    console.print_line(f"continuing {console.short_path(path)} after step {contents['global_step']:,}")
    return int(contents["global_step"])


def _check_settings(contents: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """Refuses to go on with other settings, or with nothing left to do."""
    then = contents["vaelab"]["config"]
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
    other = other or sorted(changed.keys() ^ now.keys())
    if other:
        more = f" (and {len(other) - 5} more)" if len(other) > 5 else ""
        raise UserError(
            f"{path} was trained with other settings, and goes on with those alone: type {' '.join(other[:5])}{more}"
        )
    run_dir = path.resolve().parent.parent
    if Path(config["run_dir"]).resolve() == run_dir and not (run_dir / "metrics.json").is_file():
        return  # it may have ended between its last step and its test, which is what is left then
    done = (
        contents.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {}).get("processed", 0)
    )
    epochs, steps = config["trainer"]["max_epochs"], config["trainer"]["max_steps"]
    if epochs not in (None, -1) and done >= epochs:
        raise UserError(f"{path} has been trained for {done} epochs already: type e.g. trainer.max_epochs={2 * done}")
    if steps not in (None, -1) and contents["global_step"] >= steps:
        raise UserError(
            f"{path} has been trained for {contents['global_step']} steps already: type a larger trainer.max_steps"
        )


def finished_metrics(run_dir: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The final figures of a run that is complete; ``None`` where there is something left to train.

    Args:
        run_dir: a run folder, of an earlier attempt at the same sweep.
        config: of the job whose folder it is now.

    Raises:
        UserError: it holds a run with other settings.
    """
    then: Any = OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"))
    was, now = (dict(_settings(settings)) for settings in (then, config))
    other = [typed(key, value) for key, value in was.items() if now.get(key, value) != value]
    if other or was.keys() != now.keys():
        raise UserError(
            f"{run_dir} holds a run with other settings, {' '.join(other[:5])}: choose another hydra.sweep.dir, or the "
            "same sweep"
        )
    length = all(then["trainer"].get(key) == config["trainer"][key] for key in ("max_epochs", "max_steps"))
    if not length or not (run_dir / "metrics.json").is_file():
        return None
    figures: dict[str, Any] = json.loads((run_dir / "metrics.json").read_text())
    return figures


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for part in _PARTS:
        node: Any = config
        for key in part.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        yield from _flat(part, node)


def _flat(prefix: str, node: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        moved = {f"data.source.{key}" for key in checkpoint.DATA_PATHS}  # files may lie elsewhere now
        if prefix not in moved | {"module.vae.latent_dim", "module.vae.classes"}:  # said already
            yield prefix, node
        return
    for key, value in node.items():
        yield from _flat(f"{prefix}.{key}", value)


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keeps other trainings out of a run's folder, which is made, as long as the context lasts.

    The lock is the system's, on an open file: it ends with the process, however that ends.

    Raises:
        UserError: another training is there, or the folder cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = (run_dir / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"{run_dir} cannot be written ({error.strerror}): type hydra.run.dir=<another folder>"
        ) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another training is writing into {run_dir}: wait for its end, or choose another folder"
                ) from error
            except OSError as error:  # some network file systems have no locks
                log.warning("%s could not be locked (%s): let no other training write there", run_dir, error.strerror)
        yield
