"""Several processes come to what one comes to, in one folder, and end together, however one of them ends."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from tests import warm
from tests.conftest import ROOT, composed
from tests.on_every_rank import CASES, settings
from vaelab.commands.train import train
from vaelab.runtime import distributed
from vaelab.runtime.errors import UserError

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "HYDRA"))},
    "OMP_NUM_THREADS": "1",
}
TORCHRUN = ["-m", "torch.distributed.run"]
TRAIN = [str(ROOT / "src" / "train.py")]


def _run(command: list[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return warm.run(command, env=ENVIRONMENT, cwd=cwd)


def _contents(folder: Path) -> dict[str, Any]:
    contents: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return contents


def _close(one: Path, several: Path, tolerance: float = 1e-5) -> None:
    """The same figures at the same steps, and the same weights, but for the order in which numbers are added up.

    In float32 two sums of a thousand numbers agree to about 1e-6; what was found here are differences of 1e-7 in the
    weights, after a dozen steps.
    """
    rows = []
    for folder in (one, several):
        with (folder / "metrics.csv").open(newline="") as file:
            rows.append(list(csv.DictReader(file)))
    for row, other in zip(*rows, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            if value:
                assert float(other[name]) == pytest.approx(float(value), rel=tolerance, abs=10 * tolerance), name
            else:
                assert not other[name]
    weights, others = (_contents(folder)["state_dict"] for folder in (one, several))
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> tuple[Path, str]:
    """Every case trained by three processes, and the folder with the images."""
    folder, cache = tmp_path_factory.mktemp("three"), tiny_data[0].partition("=")[2]
    done = _run([*TORCHRUN, "--nproc_per_node=3", "-m", "tests.on_every_rank", str(folder), cache])
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, cache


@pytest.mark.parametrize("case", CASES)
def test_three_processes_come_to_what_one_does(case: str, shared: tuple[Path, str], tmp_path: Path) -> None:
    folder, cache = shared
    train(composed("train", *settings(case, tmp_path, cache), "trainer.accelerator=cpu"))
    # bfloat16 has three digits, and Adam makes whole steps of gradients that are all rounding.
    _close(tmp_path / case, folder / case, 0.02 if case == "mixed_precision" else 1e-5)
    figures = [json.loads((folder / f"{case}.{rank}.json").read_text()) for rank in range(3)]
    for name, value in figures[0].items():
        if name not in ("seconds", "images_per_second"):
            assert [other[name] for other in figures] == [value] * 3, name  # on each of them
    assert OmegaConf.load(folder / case / "config.yaml").trainer.devices == 3


def test_each_job_of_a_sweep_has_processes_of_its_own(tmp_path: Path, tiny_data: list[str]) -> None:
    """One folder and one W&B run a job, a failing job in between, nothing left over for the next."""
    sweep = tmp_path / "a sweep"
    options = [*tiny_data, "callbacks.gallery=null", "accelerator=ddp_cpu", "latent_dim=2,-1,3", "logger=many"]
    done = _run([*TRAIN, "-m", *options, f"hydra.sweep.dir={sweep}"])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("1 of 3 jobs failed")
    assert "Traceback" not in done.stderr
    assert done.stdout.count("run folder:") == 2
    for number, latent_dim in ((0, 2), (2, 3)):
        job = sweep / str(number)
        assert len(list(job.glob("wandb/offline-run-*"))) == 1
        assert (job / "pictures" / "samples.png").is_file()
        alone = tmp_path / str(number)
        train(composed("train", *options[:-2], f"latent_dim={latent_dim}", f"run_dir={alone}", "accelerator=cpu"))
        _close(alone, job)
    with (sweep / "results.csv").open(newline="") as file:
        assert [row["status"].partition(":")[0] for row in csv.DictReader(file)] == ["done", "done", "failed"]


def test_processes_of_torchrun_agree_on_a_sweeps_folders(tmp_path: Path, tiny_data: list[str]) -> None:
    """From a copy of the scripts, since it is the default folder that is looked at."""
    for name in ("src", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    script = [str(tmp_path / "src" / "train.py"), "-m", *tiny_data, "accelerator=ddp_cpu", "latent_dim=2,3"]
    done = _run([*TORCHRUN, "--nproc_per_node=2", *script, "callbacks=none"], tmp_path)
    assert done.returncode == 0, done.stderr
    [sweep] = (tmp_path / "logs" / "train" / "multiruns").iterdir()
    assert done.stdout.count("run folder:") == 2
    assert {json.loads((sweep / number / "metrics.json").read_text())["steps"] for number in "01"} == {8}
    assert (sweep / "results.csv").is_file()


def _started(run_dir: Path, options: list[str]) -> warm.Started:
    """A training that has its first checkpoint."""
    child = warm.start([*TRAIN, *options, f"hydra.run.dir={run_dir}"], env=ENVIRONMENT, own_session=True)
    while not (run_dir / "checkpoints" / "last.ckpt").exists():
        assert child.poll() is None, child.communicate(0)
        time.sleep(0.05)
    return child


def _children(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found]


LONG = ["data.limit=1500", "trainer.max_epochs=5", "trainer.log_every_n_steps=7", "data.binarize=dynamic"]
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")


@needs_proc
def test_a_signal_ends_both_and_one_goes_on(tmp_path: Path, tiny_data: list[str]) -> None:
    """Ctrl-C reaches every process; what goes on, here with one process, comes to the same."""
    options = [*tiny_data, *LONG, "callbacks.pictures=null", "callbacks.gallery=null"]
    with _started(tmp_path / "stopped", [*options, "accelerator=ddp_cpu"]) as child:
        others = _children(child.pid)
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=120)
    assert child.returncode == 130, out + err
    assert out.count("stopped by SIGINT") == 1
    assert "Traceback" not in err
    assert not any(Path(f"/proc/{other}").exists() for other in others)
    assert sorted(path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert 94 <= _contents(tmp_path / "stopped")["global_step"] < 470, out
    train(composed("train", *options, f"run_dir={tmp_path / 'stopped'}", f"ckpt_path={tmp_path / 'stopped'}"))
    train(composed("train", *options, f"run_dir={tmp_path / 'whole'}"))
    whole, stopped = (_contents(tmp_path / name) for name in ("whole", "stopped"))
    assert whole["global_step"] == stopped["global_step"] == 470
    assert stopped["vaelab"]["metrics"]["val/elbo"] == pytest.approx(whole["vaelab"]["metrics"]["val/elbo"], rel=1e-3)


@needs_proc
def test_a_process_that_dies_ends_the_others_and_both_go_on(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, *LONG, "callbacks.pictures=null", "callbacks.gallery=null", "accelerator=ddp_cpu"]
    with _started(tmp_path, options) as child:
        [other] = [pid for pid in _children(child.pid) if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(other, signal.SIGKILL)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert err.startswith("error: process 1 of 2 was ended by SIGKILL: resume with ckpt_path=")
    assert len(err.splitlines()) == 1
    assert _contents(tmp_path)["global_step"] >= 94
    done = _run([*TRAIN, *options, f"hydra.run.dir={tmp_path}", f"ckpt_path={tmp_path}"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("resuming") == 1
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == 470


def test_a_process_is_told_the_jobs_settings_and_no_sweep() -> None:
    sources = [{"path": "/elsewhere/configs", "provider": "command-line"}, {"path": "configs", "provider": "main"}]
    job: Any = OmegaConf.create(
        {
            "overrides": {"task": ["latent_dim=3", "+ckpt_path=old", "data.image_shape=[1,2,2]"]},
            "job": {"config_name": "train"},
            "runtime": {"config_sources": sources, "output_dir": "/runs/it's here/0"},
        }
    )
    line = distributed.command(job, "/runs/a b/checkpoints/last.ckpt")
    assert line[1:4] == [str(ROOT / "src" / "train.py"), "--config-name=train", "--config-dir=/elsewhere/configs"]
    assert line[4:] == [
        "latent_dim=3",
        "data.image_shape=[1,2,2]",
        "ckpt_path='/runs/a b/checkpoints/last.ckpt'",
        r"hydra.run.dir='/runs/it\'s here/0'",
    ]


def test_torchrun_with_another_number_of_processes_is_refused(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    message = r"torchrun has started 4 processes.*are for 1: type trainer\.devices=2 trainer\.num_nodes=2"
    with pytest.raises(UserError, match=message):
        train(composed("train", *tiny_data, f"run_dir={tmp_path}"))


def _trainer(rank: int = 0, world_size: int = 2) -> Any:
    return SimpleNamespace(global_rank=rank, world_size=world_size, num_nodes=1)


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*distributed._COUNTS, *distributed._VARIABLES):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MASTER_PORT": "abc"}, "MASTER_PORT=abc in the environment: it must be a number; type unset MASTER_PORT"),
        ({"NODE_RANK": "x"}, "NODE_RANK=x in the environment"),
        ({"MASTER_PORT": "70000"}, "at most 65535"),
        ({"RANK": "1"}, "RANK=1 and WORLD_SIZE=1 .* type unset RANK WORLD_SIZE"),
        ({"NODE_RANK": "1"}, "NODE_RANK=1 in the environment: this would be process 1 of 2.*type unset NODE_RANK"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1 in the environment: this would be process 1 of 2.*type unset LOCAL_RANK"),
        ({"MASTER_ADDR": "no.such.host.invalid"}, "MASTER_ADDR=no.such.host.invalid .*there is no such machine"),
    ],
)
def test_variables_that_keep_processes_apart_are_named(
    variables: dict[str, str], said: str, no_cluster: pytest.MonkeyPatch
) -> None:
    distributed.check_environment()
    distributed.check_rank(_trainer())
    for name, value in variables.items():
        no_cluster.setenv(name, value)

    def check() -> None:
        distributed.check_environment()
        distributed.check_rank(_trainer(rank=int("LOCAL_RANK" in variables)))

    with pytest.raises(UserError, match=said):
        check()


def test_a_port_that_is_taken_is_named(no_cluster: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        no_cluster.setenv("MASTER_PORT", str(port))
        with pytest.raises(UserError, match=f"MASTER_PORT={port} .*Address already in use.*type unset MASTER_PORT"):
            distributed.check_rank(_trainer())
        distributed.check_rank(_trainer(world_size=1))
    distributed.check_rank(_trainer())


def test_processes_that_do_not_meet_are_known_by_the_kind_of_the_error(no_cluster: pytest.MonkeyPatch) -> None:
    no_cluster.setenv("MASTER_PORT", "1")
    said = "cannot connect at .*:1 .*: type unset MASTER_PORT on one machine"
    for kind in (torch.distributed.DistNetworkError, torch.distributed.DistStoreError):
        with pytest.raises(UserError, match=said), distributed.process_group(_trainer()):
            raise kind("whatever it says")
    with pytest.raises(RuntimeError, match="a bug"), distributed.process_group(_trainer()):
        raise RuntimeError("a bug")
