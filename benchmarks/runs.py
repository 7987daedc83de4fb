"""Trainings of benchmarks: complete ones are not repeated, and interrupted ones are resumed."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from vaelab.runtime.overrides import literal

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def finished(folder: Path) -> bool:
    """Whether the training in this run folder is complete."""
    return (folder / "metrics.json").is_file()


def finish(folder: Path, overrides: Sequence[str]) -> bool:
    """Trains with these overrides, or resumes the training, and returns whether it has succeeded."""
    if finished(folder):
        return True
    command = [sys.executable, str(ROOT / "src" / "train.py"), *overrides, f"hydra.run.dir={literal(folder)}"]
    if (folder / "checkpoints" / "last.ckpt").is_file():
        command.append(f"ckpt_path={literal(folder)}")
    return subprocess.run(command, cwd=ROOT).returncode == 0
