"""Paths of the project and of its configuration files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = ROOT / "configs"
FAILURE = "failed.txt"  # in the folder of a failed job of a sweep: the reason


def options_of(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
