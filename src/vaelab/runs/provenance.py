"""``about.json``: versions, machine and numbers of images, so that a run can be repeated."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig

from vaelab.data.source import Images
from vaelab.runtime import files
from vaelab.runtime.hardware import processor
from vaelab.runtime.overrides import plain
from vaelab.runtime.paths import ROOT
from vaelab.runtime.version import __version__

_PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "numpy")


def task_overrides() -> list[str]:
    """The settings that were typed for the current job."""
    return list(plain(HydraConfig.get().overrides.task)) if HydraConfig.initialized() else []


def choices() -> dict[str, str]:
    """The chosen option of every config group, for the current job."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {
        str(group): str(option) for group, option in chosen.items() if option and not str(group).startswith("hydra")
    }


def write(path: Path, device: str, precision: str, splits: Mapping[str, Images]) -> None:
    """Writes ``about.json``.

    Args:
        path: of the file.
        device: on which the training computes.
        precision: of the training, as Lightning names it.
        splits: the images of each split.
    """
    files.write_json(
        {
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "device": device,
            "precision": precision,
            "images": {name: len(split.images) for name, split in splits.items()},
            "machine": {
                "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
                "processor": processor(),
                "cores": os.cpu_count(),
                "threads": torch.get_num_threads(),
            },
            "versions": {"vaelab": __version__, "python": platform.python_version(), **_versions()},
            "commit": _commit(),
        },
        path,
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of the project and whether files were changed since; ``None`` if the project is not a clone."""
    if not (ROOT / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=, changed since", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
