"""The folder of a sweep: its jobs, ranked."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaelab.runs import comparability, job_records
from vaelab.runs.foreign_files import lies_in, read_yaml
from vaelab.runs.job_records import JobRecord
from vaelab.runs.ranked_table import Column, RankedTable, number_of
from vaelab.runs.run_folder import RunFolder

TERMS = ("val/elbo", "test/elbo", "test/reconstruction", "test/kl")
STUDY = "search"  # the name of the Optuna study of a search


@dataclass
class Job:
    """One job of a sweep.

    Attributes:
        folder: of the job.
        name: its folder, relative to the folder of the sweep.
        number: of the job.
        overrides: all settings that were typed for it.
        metrics: its final metrics; empty if the job is not complete.
        failure: why it failed; empty if it did not.
        kind: equal for jobs whose metrics can be compared.
        rank: among the complete jobs of its kind, from 1; 0 for other jobs.
        report: whether the job writes a report; ``None`` if that is not known.
        wandb: the settings of its W&B logger, if it has one.
    """

    folder: Path
    name: str
    number: int
    overrides: dict[str, str]
    metrics: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    kind: str = ""
    rank: int = 0
    report: bool | None = None
    wandb: dict[str, Any] = field(default_factory=dict)

    @property
    def elbo(self) -> float:
        """The ELBO on validation images, by which jobs are ranked; minus infinity if it is not finite."""
        value = self.metrics.get("val/elbo")
        return value if isinstance(value, float) and math.isfinite(value) else -math.inf

    @property
    def status(self) -> str:
        """``done``, ``failed`` or ``not complete``."""
        return "done" if self.metrics else "failed" if self.failure else "not complete"


def read(folder: Path) -> list[Job]:
    """The jobs of a sweep: complete jobs first, grouped by kind, the best validation ELBO first in each group."""
    records = _records(folder)
    jobs = [_job(folder, record, records) for record in records]
    done = sorted((job for job in jobs if job.metrics), key=lambda job: (job.kind, -job.elbo, job.number))
    for _, same in itertools.groupby(done, key=lambda job: job.kind):
        for rank, job in enumerate(same, 1):
            job.rank = rank
    return done + sorted((job for job in jobs if not job.metrics), key=lambda job: job.number)


def is_sweep(folder: Path) -> bool:
    """Whether jobs of a sweep have run in this folder."""
    return folder.is_dir() and bool(_records(folder))


def _records(sweep: Path) -> list[JobRecord]:
    """The records of the jobs, and of those that have none: their sweep ran before there were records."""
    records = job_records.current(job_records.read(sweep))
    recorded = {record.folder for record in records}
    for path in sweep.iterdir():
        file = path / ".hydra" / "overrides.yaml"
        if path.name.isdecimal() and path.name not in recorded and file.is_file():
            run = RunFolder(path)
            reason = run.text(run.failure_file).strip() if run.failure_file.is_file() else ""
            records.append(JobRecord(int(path.name), path.name, tuple(_typed(file, path)), 0, reason))
    return records


def _typed(path: Path, folder: Path) -> list[str]:
    """What was typed for a job, from a file of Hydra; empty if the file cannot be read."""
    try:
        values = read_yaml(path) if lies_in(path, folder) else []
    except Exception:  # incomplete, or a file of another kind
        values = []
    return [text for text in values if isinstance(text, str)] if isinstance(values, list) else []


def _job(sweep: Path, record: JobRecord, records: Sequence[JobRecord]) -> Job:
    run = RunFolder(sweep / record.folder)
    config, typed = run.config, list(record.overrides)
    stored = config.get("overrides", typed)
    # A job may fail because its folder holds the results of another one, or of an earlier attempt at itself.
    is_own = not record.failure or record.started == 0 or stored == typed
    if stored != typed and any(other.folder == record.folder and [*other.overrides] == stored for other in records):
        is_own = False  # jobs share this folder
    job = Job(run.path, record.folder, record.number, {}, run.metrics if is_own else {})
    if not job.metrics:
        job.failure = record.failure
    if is_own and config:
        typed = config.get("overrides", typed)  # the record is of the last attempt, even if it was interrupted early
        job.kind = json.dumps(comparability.shared_settings(config, job.metrics.get("unit") == "nats"))
        job.report = bool(config.get("report", True))
        logger = config.get("logger")
        wandb = logger.get("wandb") if isinstance(logger, dict) else None
        job.wandb = wandb if isinstance(wandb, dict) else {}
    job.overrides = dict(override.lstrip("+").split("=", 1) for override in typed if "=" in override)
    return job


def swept(jobs: Sequence[Job]) -> list[str]:
    """The settings that differ between jobs, in the order in which they were typed."""
    names = list(dict.fromkeys(name for job in jobs for name in job.overrides))
    return [name for name in names if len({job.overrides.get(name) for job in jobs}) > 1]


def caption(comparable: bool) -> str:
    """The line below a table of jobs.

    Args:
        comparable: whether the metrics of all jobs can be compared.
    """
    line = "Ranked by the ELBO on validation images; test metrics are sums over pixels, averaged over images."
    if comparable:
        return line
    return f"{line} Jobs with different images or losses cannot be compared; each group is ranked by itself."


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Short names of settings: the last part of each, or the last two parts if two settings share the last one."""
    last = [name.rpartition(".")[2] for name in names]
    return {
        name: short if last.count(short) == 1 else ".".join(name.split(".")[-2:])
        for name, short in zip(names, last, strict=True)
    }


def table_of(jobs: Sequence[Job], names: Sequence[str]) -> RankedTable:
    """The table of the jobs, in their order.

    Args:
        jobs: of the sweep.
        names: settings with a column each.
    """
    short = short_names(names)
    is_numbered = all(job.name == str(job.number) for job in jobs)
    columns = [
        Column("rank", is_metric=True, format=str),
        Column("job", is_metric=True, format=str),
        *(Column(name, short[name], breaks="heading", format=shortened) for name in names),
        *(Column(term, is_metric=True) for term in TERMS),
        Column("unit"),
        Column("epochs", is_metric=True),
        Column("seconds", is_metric=True),
        Column("status"),
        *([] if is_numbered else [Column("folder", breaks="cells")]),
    ]
    rows = [{**_row(job, names), **({} if is_numbered else {"folder": job.name})} for job in jobs]
    return RankedTable(columns, rows)


def _row(job: Job, names: Sequence[str]) -> dict[str, Any]:
    return {
        "rank": job.rank or "",
        "job": job.number,
        **{name: job.overrides.get(name, "") for name in names},
        **{term: "" if job.metrics.get(term) is None else job.metrics[term] for term in TERMS},
        "unit": job.metrics.get("unit", ""),
        "epochs": job.metrics.get("epochs", ""),
        "seconds": job.metrics.get("seconds", ""),
        "status": f"{job.status}: {job.failure}" if job.failure else job.status,
    }


def shortened(text: str) -> str:
    """A setting as text, with four digits if a search has chosen a longer number."""
    number = number_of(text)
    return text if number is None or len(text) <= 8 else f"{number:.4g}"
