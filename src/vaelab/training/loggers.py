"""Loggers, and what every one of them is told about a run."""

import contextlib
import csv
import io
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from vaelab.runs.metrics_csv import read_rows
from vaelab.runtime.errors import UserError
from vaelab.runtime.files import write_csv
from vaelab.training import lightning_workarounds

log = logging.getLogger(__name__)


class CSVLogger(Logger):
    """Figures over time in one CSV file, a row each time some are logged, safely on disk as soon as they are.

    A training that goes on in its run folder goes on in its file, see :meth:`resume`. (Lightning's logger of this name
    starts the file anew, and leaves the last rows in memory for a while.)

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in the run folder's ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        if not set(row) <= set(self._columns):  # also at first: whatever is there already is read, and made whole
            self._rewrite(read_rows(self.path), row)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)
            _to_disk(file)

    @rank_zero_only
    def resume(self, step: int, before: Path | None = None) -> None:
        """Begins with the rows up to ``step``, from which on a training that goes on there logs them again.

        Args:
            step: the first one that is left.
            before: the file of the run that it goes on from; without it, or where it is not there, this file itself.
        """
        path = before if before is not None and before.is_file() else self.path
        if path.is_file():
            self._rewrite([row for row in read_rows(path) if int(row["step"]) < step], ())

    def _rewrite(self, rows: list[dict[str, str]], columns: Iterable[str]) -> None:
        names = {*columns, *(rows[0] if rows else ())}
        self._columns = sorted(names, key=lambda name: (name not in ("epoch", "step"), name))
        write_csv(self._columns, rows, self.path, is_durable=True)


def _to_disk(file: TextIO) -> None:
    file.flush()
    os.fsync(file.fileno())


class PatientWandbLogger(WandbLogger):
    """Weights & Biases, of which nothing is heard any more once it has failed: a training does not end for its sake."""

    failed = False

    @property
    def experiment(self) -> Any:
        """W&B's run, or what does nothing in its place."""
        if not self.failed:
            try:
                return super().experiment
            except Exception as error:
                self._give_up(error)
        return lightning_workarounds.dummy_experiment()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._try(super().log_metrics, metrics, step)

    def log_hyperparams(self, params: Any) -> None:
        self._try(super().log_hyperparams, params)

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self._try(super().log_image, key, images, step, **kwargs)

    def log_video(self, key: str, videos: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self._try(super().log_video, key, videos, step, **kwargs)

    def finalize(self, status: str) -> None:
        self._try(super().finalize, status)

    def summarize(self, metrics: Mapping[str, Any]) -> None:
        """Sets what the table of runs shows, where it shows the last value that was logged otherwise."""
        self._try(lambda: self.experiment.summary.update(dict(metrics)))

    def finish(self, exit_code: int) -> None:
        """Ends the run."""
        if self._experiment is not None:
            self._try(self._experiment.finish, exit_code=exit_code)

    def _try(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        _ = self.experiment  # which begins with the first that is logged
        if self.failed:
            return
        try:
            action(*args, **kwargs)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.failed = True
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        log.warning("W&B failed and is told nothing from here on; the training goes on: %s", reason[0])


def _run_before(save_dir: str) -> str | None:
    """The identifier of the W&B run that a training in this folder had, so that it goes on as the same run."""
    names = sorted(folder.name.partition("run-")[2] for folder in Path(save_dir, "wandb").glob("*run-*-*"))
    return names[-1].split("-")[1] if names else None  # <time>-<identifier>, and -<n> of several in one second


def has_key() -> bool:
    """Whether there is a key for W&B, in the environment or where ``wandb login`` has put it."""
    import wandb

    with contextlib.redirect_stderr(io.StringIO()):  # newer versions recommend what older ones do not have
        return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)


def _mode(offline: bool | None) -> str:
    by_default = "online" if "WANDB_SWEEP_ID" in os.environ else "offline"  # an agent is told what to run by the server
    mode = os.environ.get("WANDB_MODE", by_default) if offline is None else "offline" if offline else "online"
    mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)
    if mode not in ("offline", "online", "disabled"):
        raise UserError(f"WANDB_MODE={mode}: no such mode; set it to offline, online or disabled")
    return mode


def wandb_logger(
    save_dir: str,
    project: str,
    offline: bool | None = None,
    name: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
) -> PatientWandbLogger:
    """A Weights & Biases run of this job alone, offline unless somebody says otherwise, as a sweep's agent does.

    A training that goes on in its folder goes on in its run: online at once, offline in files of its own with the same
    identifier, which ``wandb sync --append`` joins.

    Args:
        save_dir: the run folder; W&B's files go to ``wandb`` in it.
        project: the W&B project.
        offline: ``None`` does what ``WANDB_MODE`` says; if it says nothing, offline, but for ``wandb agent``.
        name: of the run; the run folder's name by default.
        group: of runs that belong together.
        tags: of the run.

    Raises:
        UserError: W&B refuses to start, e.g. for want of a key.
    """
    import wandb

    mode = _mode(offline)
    if mode == "online" and not has_key():
        raise UserError(
            "W&B is to run online but has no key: put WANDB_API_KEY=... into .env, type `wandb login`, or leave it "
            "offline with logger.wandb.offline=true"
        )
    # Lightning's own offline=True sets WANDB_MODE for the whole process, and so for every later job of a sweep.
    logger = PatientWandbLogger(
        save_dir=save_dir,
        id=_run_before(save_dir),
        resume="allow" if mode == "online" else None,  # what is offline cannot look, but has the same identifier
        project=project,
        name=name or Path(save_dir).name,
        mode=mode,
        group=group,
        tags=list(tags or []),
        settings=wandb.Settings(console="off", silent=True),
    )
    lightning_workarounds.without_option(logger, "anonymous")
    return logger


def log_configuration(loggers: list[Logger], flat: dict[str, Any], nested: dict[str, Any]) -> None:
    """Tells the loggers what is being run.

    Args:
        loggers: the trainer's.
        flat: one value per choice (``model``, ``loss``, ``latent_dim``, ...), to group and filter runs by.
        nested: the whole resolved configuration, for those that can show it.
    """
    for logger in loggers:
        logger.log_hyperparams({**flat, "config": nested} if isinstance(logger, WandbLogger) else flat)


def log_final(loggers: list[Logger], metrics: Mapping[str, Any]) -> None:
    """Tells W&B the final figures, as in ``metrics.json``: those of the weights that were tested, not of the last."""
    for logger in loggers:
        if isinstance(logger, PatientWandbLogger):
            logger.summarize(metrics)


def log_sweep(
    folder: Path, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], best: Path, pictures: Sequence[Path]
) -> None:
    """Tells W&B what a sweep came to, by a run of its own in the sweep's group: its table, its pictures, its best run.

    An offline run cannot be changed once it has ended. Which was the best is therefore said by this run, in its summary
    and its table; online, the best run gets the tag ``best`` as well.

    Args:
        folder: the sweep's.
        settings: ``logger.wandb`` of its jobs.
        rows: of its table, ranked.
        best: the run folder of its best job.
        pictures: PNG files.
    """
    import wandb

    offline = settings.get("offline")
    logger = wandb_logger(
        str(folder), settings["project"], offline, f"{folder.name}-results", settings.get("group") or folder.name
    )
    identifier = _run_before(str(best))
    cells = [["" if value is None else str(value) for value in row.values()] for row in rows]
    try:
        shown = {f"sweep/{picture.stem}": wandb.Image(str(picture)) for picture in pictures}
        logger.experiment.log({"sweep/results": wandb.Table(columns=list(rows[0]), data=cells), **shown})
        metrics = {f"best/{name}": value for name, value in rows[0].items() if value != ""}
        logger.summarize({"best": identifier, **metrics})
        if _mode(offline) == "online" and identifier is not None:
            run: Any = wandb.Api().run(f"{logger.experiment.entity}/{settings['project']}/{identifier}")
            run.tags = sorted({*run.tags, "best"})
            run.update()
    finally:
        logger.finish(0)


def finish(loggers: list[Logger], status: str) -> None:
    """Ends the W&B run, so that the next job of this process begins its own.

    Args:
        loggers: the trainer's.
        status: ``success`` or ``failed``.
    """
    for logger in loggers:
        logger.finalize(status)
        if isinstance(logger, PatientWandbLogger):
            logger.finish(0 if status == "success" else 1)
