"""Paths of the project and of its configuration files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = ROOT / "configs"


def options_of(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
