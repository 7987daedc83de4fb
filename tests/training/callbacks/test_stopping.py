"""Signals end a training as its user would wish: with a checkpoint, a line, and the right exit code."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch

from tests import warm
from tests.conftest import ROOT
from vaelab.runtime import signals
from vaelab.training.callbacks.graceful_stop import GracefulStop

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


SIGNALLED = ROOT / "benchmarks" / "signalled.py"


def _command(run_dir: Path, tiny_data: list[str], *overrides: str) -> list[object]:
    return [
        ROOT / "src" / "train.py",
        *tiny_data,
        "callbacks.gallery.pictures.path=null",
        *overrides,
        f"hydra.run.dir={run_dir}",
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> Path:
    """The run folder of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    done = warm.run(_command(folder, tiny_data), env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("phase", "signum", "step"),
    [
        ("training", signal.SIGTERM, 6),
        ("validation", signal.SIGHUP, 4),
        ("last step", signal.SIGINT, 8),
        ("test", signal.SIGQUIT, 8),
        ("pictures", signal.SIGXCPU, 8),
        ("report", signal.SIGTERM, 8),
    ],
)
def test_a_stopped_training_goes_on_as_if_nothing_had_been(
    phase: str, signum: signal.Signals, step: int, whole: Path, tmp_path: Path, tiny_data: list[str]
) -> None:
    command = _command(tmp_path, tiny_data)
    done = warm.run([SIGNALLED, signum.name, phase, *command], env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (128 + signum, "")
    line = f"stopped by {signum.name} after step {step}: resume with ckpt_path={tmp_path} and the same settings"
    assert done.stdout.count("stopped by") == 1
    assert line in done.stdout.replace("\n", "")
    assert not (tmp_path / "metrics.json").exists()
    on = warm.run([*command, f"ckpt_path={tmp_path}"], env=ENVIRONMENT)
    assert on.returncode == 0, on.stderr
    _assert_same(whole, tmp_path)


@pytest.mark.parametrize(
    ("phase", "signum"), [("composition", signal.SIGTERM), ("data", signal.SIGINT), ("start", signal.SIGHUP)]
)
def test_a_command_that_has_not_begun_to_train_ends_in_one_line(
    phase: str, signum: signal.Signals, tmp_path: Path, tiny_data: list[str]
) -> None:
    done = warm.run([SIGNALLED, signum.name, phase, *_command(tmp_path / "run", tiny_data)], env=ENVIRONMENT)
    assert done.returncode == 128 + signum
    assert (done.stdout + done.stderr).splitlines()[-1].startswith(f"stopped by {signum.name}")
    assert (done.stdout + done.stderr).count("stopped by") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_signal_between_two_jobs_ends_the_sweep(tmp_path: Path, tiny_data: list[str]) -> None:
    command = [ROOT / "src" / "train.py", "-m", *tiny_data, "callbacks=none", "report=false", "seed=0,1,2"]
    command.append(f"hydra.sweep.dir={tmp_path}")
    done = warm.run([SIGNALLED, "SIGTERM", "next job", *command], env=ENVIRONMENT)
    assert done.returncode == 143
    assert done.stderr == (
        f"stopped by SIGTERM: the same command with hydra.sweep.dir={tmp_path} runs the missing jobs\n"
    )
    assert [(tmp_path / job / "metrics.json").exists() for job in "012"] == [True, False, False]


def test_a_signal_that_was_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    """As under ``nohup``, which lets a training outlive its terminal."""
    script = "import signal, os; signal.signal(signal.SIGHUP, signal.SIG_IGN); from vaelab.runtime import signals\n"
    script += "with signals.raised(): os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "alive\n")


def test_a_second_ctrl_c_ends_at_once_and_a_second_sigterm_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    for signum, code in ((signal.SIGTERM, []), (signal.SIGINT, [130])):
        with signals.raised():
            with pytest.raises(signals.Stopped):
                os.kill(os.getpid(), signum)
            os.kill(os.getpid(), signum)
            signals.asked = 0
        assert left == code


def test_what_a_library_swallows_is_raised_again() -> None:
    with signals.raised():
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(signals.Stopped):
            signals.check()
        signals.asked = 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(sys.platform != "linux", reason="calls the C library of Linux")
def test_a_process_that_is_stuck_in_a_library_ends_too() -> None:
    """Python runs no handler while C waits, here for a command, in a training for another machine."""
    script = "import ctypes; from vaelab.runtime import signals; signals._PATIENCE = 0.2\n"
    script += "with signals.raised(after=signals.leave):\n    print('ready', flush=True)\n"
    script += "    ctypes.CDLL(None).system(b'exec sleep 20 >&- 2>&-')"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.2)  # until it waits
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=10)
    assert (child.returncode, err) == (143, "stopped by SIGTERM\n")


def test_what_one_process_decides_all_of_them_do() -> None:
    """A search's pruner speaks to the first one alone."""
    said: list[bool] = []

    def any_of_all(decision: bool, all: bool) -> bool:
        assert not all
        said.append(decision)
        return True

    strategy = SimpleNamespace(reduce_boolean_decision=any_of_all)
    trainer: Any = SimpleNamespace(world_size=2, should_stop=False, strategy=strategy)
    GracefulStop(Path("last.ckpt")).on_train_epoch_end(trainer, L.LightningModule())
    assert said == [False]
    assert trainer.should_stop


def test_a_slurm_job_whose_time_is_up_is_queued_again_and_goes_on(
    whole: Path, tmp_path: Path, tiny_data: list[str]
) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    job = {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NAME": "vae",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    slurm = {**ENVIRONMENT, **job, "SLURM_NODEID": "0", "PATH": f"{scontrol.parent}:{ENVIRONMENT['PATH']}"}
    command = _command(tmp_path / "run", tiny_data)
    for phase, restarts in (("composition", {}), ("training", {}), ("test", {"SLURM_RESTART_COUNT": "1"})):
        done = warm.run([SIGNALLED, "SIGUSR1", phase, *command], env={**slurm, **restarts})
        assert done.returncode == 0, done.stderr
        assert "queued again" in done.stdout
    assert (tmp_path / "asked").read_text() == "requeue 77\n" * 3
    # As Slurm starts it: the same command, and a count.
    on = warm.run(command, env={**slurm, "SLURM_RESTART_COUNT": "2"})
    assert on.returncode == 0, on.stderr
    assert "resuming" in on.stdout
    _assert_same(whole, tmp_path / "run")


def _assert_same(whole: Path, stopped: Path) -> None:
    """Both trainings came to the same, bit for bit."""
    weights = [torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (whole, stopped)]
    for name, value in weights[0]["state_dict"].items():
        assert torch.equal(value, weights[1]["state_dict"][name]), name
    assert (whole / "metrics.csv").read_text() == (stopped / "metrics.csv").read_text()
    results, files = [], []
    for path in (whole, stopped):
        figures = json.loads((path / "metrics.json").read_text())
        results.append({name: value for name, value in figures.items() if name not in ("seconds", "images_per_second")})
        files.append({str(file.relative_to(path)) for file in path.rglob("*.*") if file.parent.name != ".hydra"})
    assert results[0] == results[1]
    assert files[0] == files[1] >= {"report.html", "pictures/samples.png", "latents.npz"}
