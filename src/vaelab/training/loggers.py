"""Loggers for CSV and Weights & Biases, and the data that they get about a run."""

import contextlib
import csv
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from vaelab.runs.metrics_csv import read_rows
from vaelab.runtime.environment import variable
from vaelab.runtime.errors import UserError
from vaelab.runtime.files import write_csv
from vaelab.training import lightning_workarounds

log = logging.getLogger(__name__)


class CSVLogger(Logger):
    """Writes metrics over time to one CSV file. Each call writes a row, which is on the disk at once.

    A resumed training continues the file, see :meth:`resume`. (Lightning's logger of this name starts a new file, and
    holds the last rows in memory for a while.)

    Args:
        path: of the file.
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
        """Does nothing: the settings are in ``config.yaml`` of the run folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        if not set(row) <= set(self._columns):  # also at the first row: an existing file may end in half a row
            self._rewrite(read_rows(self.path), row)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)
            _to_disk(file)

    @rank_zero_only
    def resume(self, step: int, before: Path | None = None) -> None:
        """Begins the file with the rows before ``step``. The resumed training logs the later rows again.

        Args:
            step: the first step of the resumed training.
            before: the file of the run that is resumed; if it is ``None`` or missing, this file.
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
    """Weights & Biases, whose failures do not end a training: after the first one, nothing more is sent."""

    failed = False

    @property
    def experiment(self) -> Any:
        """The W&B run; after a failure, an object that does nothing."""
        if not self.failed:
            try:
                with _encodable_arguments():
                    return super().experiment
            except Exception as error:
                self._disable(error)
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
        """Sets the values in W&B's table of runs, which are the last logged values otherwise."""
        self._try(lambda: self.experiment.summary.update(dict(metrics)))

    def finish(self, exit_code: int) -> None:
        """Ends the run, also after a failure: the next job of this process would continue it otherwise."""
        if self._experiment is None:
            return
        try:
            self._experiment.finish(exit_code=exit_code)
        except Exception as error:
            if not self.failed:
                self._disable(error)

    def _try(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        _ = self.experiment  # starts the run at the first call
        if self.failed:
            return
        try:
            action(*args, **kwargs)
        except Exception as error:
            self._disable(error)

    def _disable(self, error: Exception) -> None:
        self.failed = True
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        log.warning("W&B failed and gets no more data; the training continues: %s", reason[0])


@contextlib.contextmanager
def _encodable_arguments() -> Iterator[None]:
    """The command line, which W&B stores when a run starts, without characters that UTF-8 lacks."""
    before = sys.argv
    sys.argv = _encodable(before)
    try:
        yield
    finally:
        sys.argv = before


def _earlier_run(save_dir: str) -> str | None:
    """The identifier of the W&B run of an earlier training in this folder; ``None`` if there is none."""
    names = sorted(folder.name.partition("run-")[2] for folder in Path(save_dir, "wandb").glob("*run-*-*"))
    return names[-1].split("-")[1] if names else None  # <time>-<identifier>; -<n> follows if several began in a second


def has_key() -> bool:
    """Whether there is a key for W&B, in the environment or from ``wandb login``."""
    import wandb

    with contextlib.redirect_stderr(io.StringIO()):  # newer versions print advice that older ones cannot follow
        return bool(variable("WANDB_API_KEY") or wandb.api.api_key)


def _mode(offline: bool | None) -> str:
    by_default = "online" if variable("WANDB_SWEEP_ID") else "offline"  # an agent needs the server
    mode = (variable("WANDB_MODE") or by_default) if offline is None else "offline" if offline else "online"
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
    """A Weights & Biases run for this job, offline by default.

    A training that is resumed in its folder continues its W&B run. Offline, it writes new files with the same
    identifier, and ``wandb sync`` joins them if it gets all of them.

    Args:
        save_dir: the run folder; W&B's files go to its subfolder ``wandb``.
        project: the W&B project.
        offline: ``None`` follows ``WANDB_MODE``. If that is not set either, the run is online under ``wandb agent`` and
            offline otherwise.
        name: of the run; by default the name of the run folder.
        group: of runs that belong together.
        tags: of the run.

    Raises:
        UserError: W&B cannot start, e.g. because it has no key.
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
        id=_earlier_run(save_dir),
        resume="allow" if mode == "online" else None,  # an offline run cannot ask the server for the earlier run
        project=project,
        name=_encodable(name or Path(save_dir).name),
        mode=mode,
        group=_encodable(group),
        tags=_encodable(list(tags or [])),
        settings=wandb.Settings(console="off", silent=True),
    )
    lightning_workarounds.without_option(logger, "anonymous")
    if _encodable(save_dir) != save_dir:
        logger.failed = True
        log.warning("W&B gets no data, because it cannot write into %s, whose name is not UTF-8", _encodable(save_dir))
    return logger


def log_configuration(loggers: list[Logger], flat: dict[str, Any], nested: dict[str, Any]) -> None:
    """Sends the configuration to the loggers.

    Args:
        loggers: of the trainer.
        flat: one value per choice (``model``, ``loss``, ``latent_dim``, ...), to group and filter runs by.
        nested: the whole resolved configuration, for W&B.
    """
    for logger in loggers:
        logger.log_hyperparams(_encodable({**flat, "config": nested}) if isinstance(logger, WandbLogger) else flat)


def _encodable(value: Any) -> Any:
    """A copy with escapes in place of characters that UTF-8 lacks: W&B refuses names of files with them."""
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(child) for child in value]
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def log_final(loggers: list[Logger], metrics: Mapping[str, Any]) -> None:
    """Sends the final metrics to W&B, as in ``metrics.json``: those of the tested weights, not of the last ones."""
    for logger in loggers:
        if isinstance(logger, PatientWandbLogger):
            logger.summarize(metrics)


def log_sweep(
    folder: Path, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], best: Path, pictures: Sequence[Path]
) -> None:
    """Sends the results of a sweep to W&B, as one more run in the group of the sweep: table, plots and best run.

    An offline run cannot be changed after its end. So the summary and the table of this additional run name the best
    run. Online, the best run also gets the tag ``best``.

    Args:
        folder: of the sweep.
        settings: ``logger.wandb`` of its jobs.
        rows: of its table, ranked.
        best: the run folder of its best job.
        pictures: PNG files of the plots.
    """
    import wandb

    offline = settings.get("offline")
    logger = wandb_logger(
        str(folder), settings["project"], offline, f"{folder.name}-results", settings.get("group") or folder.name
    )
    identifier = _earlier_run(str(best))
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
    """Ends the W&B run, so that the next job of this process begins a new one.

    Args:
        loggers: of the trainer.
        status: ``success`` or ``failed``.
    """
    for logger in loggers:
        logger.finalize(status)
        if isinstance(logger, PatientWandbLogger):
            logger.finish(0 if status == "success" else 1)
