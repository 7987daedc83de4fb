"""Reports are written again by a command, under its present name and under that of version 0.1.0."""

import os
import shutil
from pathlib import Path

import pytest

from tests import warm
from tests.conftest import ROOT


@pytest.mark.parametrize("module", ["vaelab.commands.report", "vaelab.report"])
def test_a_report_is_written_again(module: str, tmp_path: Path) -> None:
    run = shutil.copytree(ROOT / "tests" / "old_runs" / "evaluation", tmp_path / "run")
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = warm.run(["-m", module, run], cwd=ROOT / "src", env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(run / "report.html")
    assert (run / "report.html").is_file()


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path: Path) -> None:
    done = warm.run(["-m", "vaelab.commands.report", tmp_path / "none"], cwd=ROOT / "src")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("type a folder such as logs/train/latest")
    assert len(done.stderr.strip().splitlines()) == 1
