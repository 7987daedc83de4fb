"""What a sweep knows of its jobs: a file for each job, which the job writes when it starts and when it fails.

The names of the jobs' folders say nothing about them, because ``hydra.sweep.subdir`` may be anything. The files lie in
the folder of the sweep, so they work with every launcher, and when the sweep is resumed.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vaelab.runs.foreign_files import RefusedError, read_json
from vaelab.runtime.files import write_json

log = logging.getLogger(__name__)

_FOLDER = ".jobs"  # in the folder of a sweep
_LARGEST = 2**20  # bytes of a record


@dataclass(frozen=True)
class JobRecord:
    """One job of a sweep.

    Attributes:
        number: of the job in its sweep, from 0.
        folder: of the job, relative to the folder of the sweep.
        overrides: all settings that were typed for it.
        started: nanoseconds since 1970.
        failure: why it failed; empty if it did not.
    """

    number: int
    folder: str
    overrides: tuple[str, ...]
    started: int
    failure: str = ""

    def file(self, sweep: Path) -> Path:
        """Where the record lies: the same for every attempt at the same job."""
        text = json.dumps([self.number, self.folder, self.overrides])
        return sweep / _FOLDER / f"{hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()}.json"


def begin(sweep: Path, folder: Path, number: int, overrides: Sequence[str]) -> JobRecord:
    """Records that a job starts.

    Args:
        sweep: the folder of the sweep.
        folder: of the job.
        number: of the job.
        overrides: that were typed for it.
    """
    record = JobRecord(number, Path(os.path.relpath(folder, sweep)).as_posix(), tuple(overrides), time.time_ns())
    write_json(asdict(record), record.file(sweep))
    return record


def fail(sweep: Path, record: JobRecord, reason: str) -> None:
    """Records why a job has failed."""
    write_json(asdict(replace(record, failure=reason)), record.file(sweep))


def read(sweep: Path) -> list[JobRecord]:
    """All records of a sweep, in the order of the jobs' starts; none if this is not the folder of a sweep."""
    found = []
    for path in (sweep / _FOLDER).glob("*.json"):
        try:
            values = read_json(path, _LARGEST)
            record = JobRecord(**{**values, "overrides": tuple(values["overrides"])})
            texts = (record.folder, record.failure, *record.overrides)
            if not all(isinstance(text, str) for text in texts) or {type(record.number), type(record.started)} != {int}:
                raise RefusedError("it is no record of a job")
            found.append(record)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:  # incomplete, or of another kind
            log.warning("%s could not be read: %s", path, type(error).__name__)
    return sorted(found, key=lambda record: record.started)


def current(records: Sequence[JobRecord]) -> list[JobRecord]:
    """The records that still hold: the last one of each job.

    A job with other settings takes the place of the earlier one with its number and its folder, unless it fails: that
    folder holds the results of the earlier one.

    Args:
        records: of one sweep, in the order of the jobs' starts.
    """
    kept: list[JobRecord] = []
    for record in records:
        others = [other for other in kept if other.folder == record.folder]
        same = [other for other in others if other.overrides == record.overrides or other.number == record.number]
        if record.failure and any(other.overrides != record.overrides and not other.failure for other in same):
            continue
        kept = [*(other for other in kept if other not in same), record]
    return kept
