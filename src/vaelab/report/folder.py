"""What a folder of a run or an evaluation holds, as a report needs it."""

import json
import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vaelab.report.page import NAME
from vaelab.report.pictures import Album

log = logging.getLogger(__name__)

# What a model is called by.
CHOICES = ("data", "model", "loss", "objective")


class Folder:
    """What a folder holds, read when first asked for; empty where there is no such file, or where it is damaged.

    Args:
        path: of a run or an evaluation.

    Attributes:
        damaged: names of files that could not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged: list[str] = []

    @cached_property
    def config(self) -> dict[str, Any]:
        """``config.yaml``, as it was resolved."""
        return self._read("config.yaml", lambda path: OmegaConf.to_container(OmegaConf.load(path)))

    @cached_property
    def figures(self) -> dict[str, Any]:
        """``metrics.json``."""
        return self._read("metrics.json", _json)

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """``evaluation.json``."""
        return self._read("evaluation.json", _json)

    @cached_property
    def about(self) -> dict[str, Any]:
        """``about.json``."""
        return self._read("about.json", _json)

    @cached_property
    def album(self) -> Album:
        """Its pictures."""
        return Album(self.path)

    @property
    def choices(self) -> dict[str, Any]:
        """The chosen option of every group."""
        found = self.config.get("choices") or self.evaluation.get("protocol", {}).get("choices")
        return found if isinstance(found, dict) else {}

    @property
    def setting(self) -> dict[str, Any]:
        """What describes the model: of a training its configuration, of an evaluation its protocol."""
        return self.config or self.evaluation.get("protocol", {})

    @property
    def title(self) -> str:
        """What was trained, in a few words."""
        chosen = [str(self.choices[name]) for name in CHOICES if self.choices.get(name)]
        return " · ".join(chosen) or self.path.resolve().name

    def _read(self, name: str, how: Callable[[Path], Any]) -> dict[str, Any]:
        if not (self.path / name).is_file():
            return {}
        try:
            values = how(self.path / name)
            if isinstance(values, dict):
                return values
        except Exception as error:  # torn, or something else altogether
            log.warning("%s: %s could not be read: %s", NAME, name, type(error).__name__)
        self.damaged.append(name)
        return {}


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
