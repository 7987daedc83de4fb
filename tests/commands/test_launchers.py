"""Sweeps that run several jobs at once: on the cores of a machine, and as jobs of Slurm."""

import csv
import importlib.util
import json
import math
import os
import pickle
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests import warm
from tests.conftest import ROOT
from vaelab.commands import launchers
from vaelab.runtime.errors import UserError

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SUBMITIT"))}
ENVIRONMENT["OMP_NUM_THREADS"] = "1"


def _command(folder: Path, tiny_data: list[str], *typed: str) -> list[object]:
    script = [ROOT / "src" / "train.py", "-m", *tiny_data, "callbacks.gallery=null"]
    return [*script, "callbacks.pictures=null", *typed, f"hydra.sweep.dir={folder}"]


def _table(folder: Path) -> dict[int, dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return {int(row["job"]): row for row in csv.DictReader(file)}


def test_jobs_are_counted() -> None:
    assert launchers.number_of_jobs([], None) == 1
    assert launchers.number_of_jobs(["latent_dim=2,8,20", "seed=range(4)", "model=mlp"], {"loss": "bce,mse"}) == 24
    assert launchers.number_of_jobs(["optimizer.lr=interval(0,1)"], {}) == math.inf
    assert launchers.number_of_jobs(["model=glob(conv*)"], {}) == math.inf


@pytest.mark.parametrize(
    ("launcher", "sweeper", "sweep", "said"),
    [
        ("joblib", "basic", False, "hydra/launcher=joblib is for sweeps: type -m"),
        ("basic", "search", False, "hydra/sweeper=search is for sweeps: type -m"),
        ("joblib", "basic", True, 'hydra/launcher=joblib is not installed: type pip install -e ".[sweeps]"'),
        ("submitit_slurm", "basic", True, 'submitit_slurm is not installed: type pip install -e ".[sweeps]"'),
        ("ray", "basic", True, 'hydra/launcher=ray is not installed: type pip install -e ".[ray]"'),
        ("basic", "search", True, 'hydra/sweeper=search is not installed: type pip install -e ".[sweeps]"'),
    ],
)
def test_what_a_launcher_needs_is_said(
    launcher: str, sweeper: str, sweep: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    chosen = {"hydra/launcher": launcher, "hydra/sweeper": sweeper}
    with pytest.raises(UserError, match=re.escape(said)):
        launchers.check(OmegaConf.create({"runtime": {"choices": chosen}}), sweep)


@pytest.mark.parametrize(
    ("launcher", "env", "said"),
    [
        ("basic", {"WANDB_SWEEP_ID": "abc"}, "leave -m out of its command"),
        ("joblib", {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, "type this command without torchrun or srun"),
        ("joblib", {"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, "type this command without torchrun or srun"),
    ],
)
def test_who_starts_this_sweep_may_not_start_several(
    launcher: str, env: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    chosen = {"hydra/launcher": launcher, "hydra/sweeper": "basic"}
    hydra = OmegaConf.create({"runtime": {"choices": chosen}})
    with pytest.raises(UserError, match=re.escape(said)):
        launchers.check(hydra, sweep=True)
    launchers.check(OmegaConf.create({"runtime": {"choices": {**chosen, "hydra/launcher": "basic"}}}), sweep=False)


@pytest.mark.parametrize("launcher", ["basic", "ray", "submitit_local"])
def test_jobs_inherit_what_is_of_all_runs_only(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    of_one_run = {"WANDB_RUN_ID": "xyz", "WANDB_NAME": "mine", "WANDB_RESUME": "must"}
    of_one_process = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "29500", "MASTER_ADDR": "here"}
    of_one_job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SUBMITIT_EXECUTOR": "local"}
    shared = {"WANDB_RUN_GROUP": "mine", "WANDB_PROJECT": "p", "SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "us"}
    os.environ.update({**of_one_run, **of_one_process, **of_one_job, **shared})
    hydra = {
        "runtime": {"choices": {"hydra/launcher": launcher}},
        "overrides": {"task": []},
        "sweeper": {"params": None},
    }
    launchers.prepare(OmegaConf.create(hydra))
    left = set(os.environ)
    assert set(shared) <= left
    assert not set(of_one_run) & left
    assert (set(of_one_process) <= left) == (launcher == "basic")
    assert (set(of_one_job) <= left) == (launcher != "submitit_local")


def test_the_second_process_of_a_search_s_job_is_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("VAELAB_PARENT", "1")
    chosen = {"hydra/launcher": "basic", "hydra/sweeper": "search"}
    launchers.check(OmegaConf.create({"runtime": {"choices": chosen}}), sweep=False)


def test_slurm_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = {"hydra/launcher": "submitit_slurm", "hydra/sweeper": "basic"}
    with pytest.raises(UserError, match="there is no Slurm here"):
        launchers.check(OmegaConf.create({"runtime": {"choices": chosen}}), sweep=True)


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [launchers._gpu(number) for number in range(4)] == ["0", "1", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    assert [launchers._gpu(number) for number in range(4)] == ["4", "6", "7", "4"]


def test_jobs_side_by_side_end_in_one_table(tmp_path: Path, tiny_data: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason='needs pip install -e ".[sweeps]"')
    command = _command(tmp_path, tiny_data, "hydra/launcher=joblib", "latent_dim=2,-1,3")
    done = warm.run(command, env=ENVIRONMENT)
    assert done.returncode == 1
    assert "1 of 3 jobs failed: 1 (" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert "job 2: epoch 2/2" in done.stdout
    rows = _table(tmp_path)
    assert [rows[job]["status"].partition(":")[0] for job in range(3)] == ["done", "failed", "done"]
    assert (tmp_path / "curves.png").is_file()


def test_ctrl_c_ends_all_jobs_with_checkpoints(tmp_path: Path, tiny_data: list[str]) -> None:
    """A terminal sends it to the workers, too."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason='needs pip install -e ".[sweeps]"')
    longer = ["data.limit=500", "trainer.max_epochs=12", "seed=0,1,2", "hydra.launcher.n_jobs=2"]
    command = _command(tmp_path, tiny_data, "hydra/launcher=joblib", *longer)
    with warm.start(command, env=ENVIRONMENT, own_session=True) as child:
        while len(list(tmp_path.glob("*/checkpoints/last.ckpt"))) < 2:
            assert child.poll() is None
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=120)
    assert child.returncode == 130, err
    assert err.startswith(f"stopped by SIGINT: the same command with hydra.sweep.dir={tmp_path} runs the missing jobs")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err
    assert "stopped by" in out
    assert "not complete" in out
    again = warm.run(command, env=ENVIRONMENT)
    assert again.returncode == 0, again.stderr
    assert "resuming" in again.stdout
    assert {row["epochs"] for row in _table(tmp_path).values()} == {"12"}


def test_a_worker_says_which_signal_has_ended_its_job() -> None:
    assert pickle.loads(pickle.dumps(launchers.Interrupted(15))).signum == 15


def test_submitit_runs_jobs_here(tmp_path: Path, tiny_data: list[str]) -> None:
    pytest.importorskip("submitit", reason='needs pip install -e ".[sweeps]"')
    command = _command(tmp_path, tiny_data, "hydra/launcher=submitit_local", "latent_dim=3")
    done = warm.run(command, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert _table(tmp_path)[0]["status"] == "done"
    assert any("epoch 2/2" in path.read_text() for path in tmp_path.glob(".submitit/*/*_log.out"))


# Slurm as far as submitit sees it: jobs run at once, in the background, and are started again when they are requeued.
SLURM = {
    "sbatch": """
        cp "$1" {state}/script
        echo "Submitted batch job 77"
        for task in 0 1; do setsid {bin}/start $task 0 > /dev/null 2>&1 < /dev/null & done
    """,
    "start": """
        export SLURM_JOB_ID=7$1 SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$1 SLURM_RESTART_COUNT=$2
        export SLURM_JOB_NAME=vaelab SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1
        exec bash {state}/script
    """,
    "srun": """
        while [ "${{1#-}}" != "$1" ]; do case "$1" in --output|--error) shift;; esac; shift; done
        echo $$ > {state}/pid$SLURM_ARRAY_TASK_ID
        exec "$@" >> {state}/output$SLURM_ARRAY_TASK_ID 2>&1
    """,
    "scontrol": """
        echo "$@" >> {state}/asked
        setsid {bin}/start 0 1 > /dev/null 2>&1 < /dev/null &
    """,
    "sacct": """
        echo "JobID|State|NodeList"
        for task in 0 1; do echo "77_$task|RUNNING|here"; done
    """,
}


def test_slurm_jobs_are_queued_again_once_and_go_on(tmp_path: Path, tiny_data: list[str]) -> None:
    pytest.importorskip("submitit", reason='needs pip install -e ".[sweeps]"')
    binaries, state, sweep = tmp_path / "bin", tmp_path / "state", tmp_path / "sweep"
    binaries.mkdir()
    state.mkdir()
    for name, text in SLURM.items():
        (binaries / name).write_text("#!/bin/bash\n" + text.format(state=state, bin=binaries))
        (binaries / name).chmod(0o755)
    typed = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=90", "hydra.launcher.gpus_per_node=1"]
    typed += ["hydra.launcher.partition=long", "hydra.launcher.setup=[module load cuda || true]"]
    longer = ["data.limit=500", "trainer.max_epochs=12", "seed=0,1"]
    environment = {**ENVIRONMENT, "PATH": f"{binaries}:{ENVIRONMENT['PATH']}"}
    with warm.start(_command(sweep, tiny_data, *typed, *longer), env=environment) as child:
        while not (sweep / "0" / "checkpoints" / "last.ckpt").exists():
            assert child.poll() is None
            time.sleep(0.05)
        job = int((state / "pid0").read_text())
        os.kill(job, signal.SIGTERM)  # as Slurm announces a preemption: no end
        time.sleep(0.3)
        os.kill(job, signal.SIGUSR2)
        _, err = child.communicate(timeout=200)
    output = (state / "output0").read_text()
    assert child.returncode == 0, err + output
    assert (state / "asked").read_text() == "requeue 77_0\n"
    assert output.count("stopped by SIGUSR2") == 1
    assert "stopped by SIGTERM" not in output
    assert output.count("resuming") == 1
    for number in (0, 1):
        assert json.loads((sweep / str(number) / "metrics.json").read_text())["epochs"] == 12
    with (sweep / "0" / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["val/elbo"]]
    assert steps == [32 * epoch - 1 for epoch in range(1, 13)]

    script = (state / "script").read_text()
    for line in (
        *("--time=90", "--signal=USR2@120", "--requeue", "--cpus-per-task=4", "--gpus-per-node=1", "--nodes=1"),
        *("--ntasks-per-node=1", "--mem=16GB", "--partition=long", "--array=0-1%2", "--job-name=vaelab"),
    ):
        assert f"#SBATCH {line}\n" in script, line
    assert "\nmodule load cuda || true\n" in script
