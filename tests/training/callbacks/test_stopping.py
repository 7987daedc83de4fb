"""Signals end a training as its user would wish: with a checkpoint, a line, and the right exit code."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch

from tests import warm
from tests.conftest import ROOT
from vaelab.training.callbacks.graceful_stop import GracefulStop

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def _command(run_dir: Path, tiny_data: list[str], *overrides: str) -> list[object]:
    longer = ["data.limit=1500", "trainer.max_epochs=5", "trainer.log_every_n_steps=7", "callbacks.gallery=null"]
    return [ROOT / "src" / "train.py", *tiny_data, *longer, f"hydra.run.dir={run_dir}", *overrides]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> Path:
    """The run folder of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    done = warm.run(_command(folder, tiny_data), env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_training_goes_on_as_if_nothing_had_been(
    signum: signal.Signals, code: int, whole: Path, tmp_path: Path, tiny_data: list[str]
) -> None:
    stopped = tmp_path / "stopped"
    found, out, err = _stop(_command(stopped, tiny_data), ENVIRONMENT, signum)
    assert found == code, err
    assert f"stopped by {signum.name}" in out
    assert "Traceback" not in err
    steps = torch.load(stopped / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert steps % 94  # in the middle of an epoch
    on = warm.run(_command(stopped, tiny_data, f"ckpt_path={stopped}"), env=ENVIRONMENT)
    assert on.returncode == 0, on.stderr
    _assert_same(whole, stopped)


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
    code, out, err = _stop(command, slurm, signal.SIGUSR1)
    assert code == 0, err
    assert "queued again" in out
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    # As Slurm starts it: the same command, and a count.
    on = warm.run(command, env={**slurm, "SLURM_RESTART_COUNT": "1"})
    assert on.returncode == 0, on.stderr
    assert "resuming" in on.stdout
    _assert_same(whole, tmp_path / "run")


def _stop(command: list[object], environment: dict[str, str], signum: signal.Signals) -> tuple[int, str, str]:
    """Sends a training a signal in its second epoch; its exit code, and what it has said."""
    with warm.start(command, env=environment) as child:
        while "epoch 1/5" not in child.printed():
            assert child.poll() is None, child.communicate(0)
            time.sleep(0.02)
        child.send_signal(signum)
        out, err = child.communicate(timeout=120)
    assert child.returncode is not None
    return child.returncode, out, err


def _assert_same(whole: Path, stopped: Path) -> None:
    """Both trainings came to the same, bit for bit."""
    weights = [torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (whole, stopped)]
    for name, value in weights[0]["state_dict"].items():
        assert torch.equal(value, weights[1]["state_dict"][name]), name
    assert (whole / "metrics.csv").read_text() == (stopped / "metrics.csv").read_text()
