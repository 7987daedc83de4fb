"""The folder of a run: its files and their contents."""

import logging
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from vaelab.runs import job_records
from vaelab.runs.foreign_files import RefusedError, lies_in, read_bytes, read_json, read_yaml, reason
from vaelab.runtime.renamed import up_to_date

log = logging.getLogger(__name__)

TITLE_GROUPS = ("data", "model", "loss", "objective")  # the choices by which people name a model
_DEPTH = 3  # levels of folders in which runs are searched
_LARGEST_TEXT = 2**20  # bytes that are shown of a text file
# The kinds of values by file, as far as they are used. A file with values of other kinds counts as damaged.
_KINDS: dict[str, dict[str, type]] = {
    "config": {"choices": dict, "data": dict, "module": dict, "trainer": dict, "overrides": list},
    "metrics": {},  # see _NUMBERS
    "evaluation": {"protocol": dict, "metrics": dict, "figures": dict, "arrays": dict, "remarks": list},
    "about": {"images": dict, "machine": dict, "versions": dict},
}
_NUMBERS = ("epochs", "steps", "seconds", "parameters", "images_per_second")


class RunFolder:
    """The folder of a training or of an evaluation.

    Its contents are read when they are first used. A file that is missing or damaged counts as empty. So does a link to
    a file outside the folder, see :mod:`vaelab.runs.foreign_files`.

    Args:
        path: of the folder.

    Attributes:
        config_file: the resolved configuration, and what was typed (``overrides``).
        metrics_file: the final metrics of a training; it is missing until the training is complete.
        metrics_csv: the metrics over time.
        about_file: versions, machine, numbers of images.
        evaluation_file: the metrics of an evaluation, with units, errors and protocol.
        latents_file: codes of test images, for the report.
        report_file: the report.
        images: the folder of plots and animations.
        failure_file: why a job of a sweep failed.
        lock_file: locked while a training writes here.
        damaged: names of files that could not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.metrics_file = path / "metrics.json"
        self.metrics_csv = path / "metrics.csv"
        self.about_file = path / "about.json"
        self.evaluation_file = path / "evaluation.json"
        self.latents_file = path / "latents.npz"
        self.report_file = path / "report.html"
        self.images = path / "pictures"
        self.failure_file = path / "failed.txt"
        self.lock_file = path / ".lock"
        self._checkpoints = path / "checkpoints"
        self.damaged: list[str] = []

    @classmethod
    def around(cls, checkpoint: Path) -> "RunFolder | None":
        """The run folder in which a checkpoint lies; ``None`` if the checkpoint lies elsewhere."""
        folder = cls(checkpoint.parent.parent)
        return folder if checkpoint.parent == folder._checkpoints else None

    def checkpoint(self, name: str) -> Path:
        """The file of a checkpoint: ``best`` or ``last``."""
        return self._checkpoints / f"{name}.ckpt"

    @property
    def has_checkpoints(self) -> bool:
        """Whether any checkpoint was written."""
        return any(self._checkpoints.glob("*.ckpt"))

    @property
    def is_run(self) -> bool:
        """Whether this is the folder of one training or one evaluation."""
        return self._checkpoints.is_dir() or any(
            file.is_file() for file in (self.config_file, self.evaluation_file, self.metrics_file)
        )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, with the present names of classes."""
        return up_to_date(self._read(self.config_file, read_yaml))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The final metrics."""
        return self._read(self.metrics_file, read_json)

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The evaluation: ``protocol``, ``metrics``, ``arrays`` and ``remarks``."""
        found = self._read(self.evaluation_file, read_json)
        return {"metrics" if key == "figures" else key: value for key, value in found.items()}  # figures: until 0.1.0

    @cached_property
    def about(self) -> dict[str, Any]:
        """Versions, machine and numbers of images."""
        return self._read(self.about_file, read_json)

    @property
    def choices(self) -> dict[str, Any]:
        """The chosen option of every group."""
        found = self.config.get("choices") or self.evaluation.get("protocol", {}).get("choices")
        return found if isinstance(found, dict) else {}

    @property
    def setting(self) -> dict[str, Any]:
        """The configuration of a training, or the protocol of an evaluation."""
        return self.config or self.evaluation.get("protocol", {})

    @property
    def title(self) -> str:
        """The main choices in a few words."""
        chosen = [str(self.choices[name]) for name in TITLE_GROUPS if self.choices.get(name)]
        return " · ".join(chosen) or self.path.resolve().name

    def text(self, path: Path) -> str:
        """The contents of one of its text files; empty if it is no file of this folder, or too large."""
        try:
            return read_bytes(path, _LARGEST_TEXT).decode(errors="replace") if lies_in(path, self.path) else ""
        except (OSError, RefusedError) as error:
            log.warning("%s could not be read: %s", path, reason(error))
            return ""

    def _read(self, path: Path, how: Callable[[Path], Any]) -> dict[str, Any]:
        if not path.is_file():
            return {}
        try:
            if not lies_in(path, self.path):
                raise RefusedError("it is a link to a file elsewhere")
            return _checked(how(path), path.stem)
        except Exception as error:  # incomplete, or a file of another kind
            log.warning("%s could not be read: %s", path, reason(error))
        self.damaged.append(path.name)
        return {}


def _checked(values: Any, name: str) -> dict[str, Any]:
    """The values of a file, if they are of the kinds that this project writes."""
    if not isinstance(values, dict):
        raise RefusedError(f"it is a {type(values).__name__}, no table")
    for key, kind in _KINDS[name].items():
        if values.get(key) is not None and not isinstance(values[key], kind):
            raise RefusedError(f"its {key} is a {type(values[key]).__name__}")
    typed = values.get("overrides") or []
    protocol = values.get("protocol") or {}
    if not all(isinstance(text, str) for text in (*typed, *(protocol.get("overrides") or []))):
        raise RefusedError("its overrides are no texts")
    if name == "metrics" and not all(isinstance(values.get(key, 0), int | float | None) for key in _NUMBERS):
        raise RefusedError("its metrics are no numbers")
    if name == "evaluation" and not all(isinstance(part, dict) for part in (values.get("metrics") or {}).values()):
        raise RefusedError("its metrics are no tables")
    return {key: value for key, value in values.items() if value is not None or key not in _KINDS[name]}


def runs_in(folder: str | Path) -> dict[str, Path]:
    """The runs below a folder, by their relative paths; none if the folder is a run itself, or not a folder."""
    root = Path(folder).expanduser()
    if str(folder) == "latest" or not root.is_dir() or (root / "checkpoints").is_dir():
        return {}
    found = [path.parent for depth in range(1, _DEPTH + 1) for path in root.glob("*/" * depth + "checkpoints")]
    found += [root / record.folder for record in job_records.read(root)]  # the jobs of a sweep may lie anywhere
    runs = {Path(os.path.relpath(path, root)).as_posix(): path for path in found if RunFolder(path).has_checkpoints}
    base = root.resolve()
    there = {base / name for name in runs}  # a link to one of these runs (as latest is) is not another run
    runs = {name: path for name, path in runs.items() if path.resolve() == base / name or path.resolve() not in there}
    return dict(sorted(runs.items(), key=lambda run: [(len(part), part) for part in run[0].split("/")]))
