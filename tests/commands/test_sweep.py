"""What a sweep's folder comes to, from the files that its jobs leave."""

import csv
import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests import warm
from vaelab.commands.sweep import write_results
from vaelab.runs.sweep_folder import read, swept
from vaelab.runtime.paths import ROOT


def _job(folder: Path, number: int, overrides: list[str], elbo: float | None, loss: str = "bce", **more: Any) -> None:
    path = folder / str(number)
    (path / ".hydra").mkdir(parents=True)
    OmegaConf.save(overrides, path / ".hydra" / "overrides.yaml")
    OmegaConf.save({"choices": {"data": "mnist", "loss": loss}, "data": {"binarize": "none"}}, path / "config.yaml")
    if elbo is not None:
        figures = {
            "val/elbo": elbo,
            "test/elbo": elbo - 1,
            "test/reconstruction": 20 - elbo,
            "test/kl": -19.0,
            "unit": "nats",
            "epochs": 3,
            "seconds": 1.5,
            **more,
        }
        (path / "metrics.json").write_text(json.dumps(figures))


def _is_picture(path: Path) -> bool:
    return bool(np.asarray(Image.open(path).convert("L")).std() > 10)


def test_jobs_are_ranked_and_failures_keep_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (latent_dim, elbo) in enumerate([("2", -150.0), ("8", -110.0), ("20", -105.0), ("-1", None)]):
        _job(tmp_path, number, ["model=mlp", f"latent_dim={latent_dim}"], elbo)
    (tmp_path / "3" / "failed.txt").write_text("it must be a positive integer\n")
    _job(tmp_path, 4, ["model=mlp", "latent_dim=9"], None)
    write_results(tmp_path)
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["latent_dim"] for row in rows] == ["20", "8", "2", "-1", "9"]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "", ""]
    assert rows[3]["status"] == "failed: it must be a positive integer"
    assert rows[4]["status"] == "not complete"
    assert "model" not in rows[0]  # the same in all jobs
    assert "-105.00" in (tmp_path / "results.md").read_text()
    assert "results.md" in capsys.readouterr().out
    assert _is_picture(tmp_path / "curves.png")
    assert _is_picture(tmp_path / "rate_distortion.png")
    assert not (tmp_path / "heat_map.png").exists()


def test_a_figure_that_is_no_number_costs_no_other_job_its_row(tmp_path: Path) -> None:
    """As ``metrics.json`` has those that were not finite, and those that nobody asked for."""
    for number, elbo in enumerate([-150.0, -110.0, -120.0]):
        _job(tmp_path, number, [f"latent_dim={number + 2}"], elbo)
    _job(tmp_path, 3, ["latent_dim=30"], 0.0)
    (tmp_path / "3" / "metrics.json").write_text('{"val/elbo": null, "test/elbo": null, "unit": "nats", "epochs": 3}')
    _job(tmp_path, 4, ["latent_dim=40"], 0.0)
    (tmp_path / "4" / "metrics.json").write_text('{"unit": "nats", "epochs": 3, "seconds": 1.0}')
    write_results(tmp_path)
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["latent_dim"] for row in rows] == ["3", "4", "2", "30", "40"]
    assert [row["val/elbo"] for row in rows[3:]] == ["", ""]
    assert _is_picture(tmp_path / "curves.png")
    assert (tmp_path / "report.html").is_file()


def test_two_numbers_make_a_map_and_seeds_a_spread(tmp_path: Path) -> None:
    grid = itertools.product((2, 8), (1e-4, 1e-3, 1e-2), (0, 1))
    for number, (latent_dim, rate, seed) in enumerate(grid):
        overrides = [f"latent_dim={latent_dim}", f"optimizer.lr={rate}", f"seed={seed}"]
        _job(tmp_path, number, overrides, -100.0 - latent_dim - 1000 * rate - seed)
    jobs = read(tmp_path)
    assert swept(jobs) == ["latent_dim", "optimizer.lr", "seed"]
    write_results(tmp_path)
    assert _is_picture(tmp_path / "heat_map.png")
    assert _is_picture(tmp_path / "curves.png")


def test_different_losses_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (loss, latent_dim) in enumerate(itertools.product(("bce", "mse"), (2, 4))):
        _job(tmp_path, number, [f"loss={loss}", f"latent_dim={latent_dim}"], -10.0 * number - latent_dim, loss)
    write_results(tmp_path)
    assert "cannot be compared" in capsys.readouterr().out.replace("\n", " ")
    assert [(job.overrides["loss"], job.rank) for job in read(tmp_path)] == [
        ("bce", 1),
        ("bce", 2),
        ("mse", 1),
        ("mse", 2),
    ]
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("setting", "unit", "together"),
    [
        ("module.vae.likelihood.weight", "not nats", False),
        ("module.vae.likelihood.scale", "nats", True),  # densities of the same images
        ("conditional", "nats", False),
        ("data.source.folder", "nats", False),
        ("data.source.data_dir", "nats", True),  # the same files elsewhere
        *((f"data.{name}", "nats", False) for name in ("limit", "validation", "source.seed", "image_shape", "of_mine")),
        *((f"data.{name}", "nats", True) for name in ("batch_size", "eval_batch_size", "seed", "shuffle")),
        *((f"trainer.limit_{split}_batches", "nats", False) for split in ("val", "test")),
        ("trainer.limit_train_batches", "nats", True),
        ("trainer.overfit_batches", "nats", False),
        ("trainer.max_epochs", "nats", True),
    ],
)
def test_only_what_can_be_compared_is_ranked_together(setting: str, unit: str, together: bool, tmp_path: Path) -> None:
    (tmp_path / "curves.png").touch()  # of an earlier attempt
    for number in range(1, 4):
        _job(tmp_path, number, [f"{setting}={number}"], -10.0 * number, unit=unit)
        config = OmegaConf.load(tmp_path / str(number) / "config.yaml")
        OmegaConf.update(config, setting, number)
        OmegaConf.save(config, tmp_path / str(number) / "config.yaml")
    write_results(tmp_path)
    assert sorted(job.rank for job in read(tmp_path)) == ([1, 2, 3] if together else [1, 1, 1])
    assert (tmp_path / "curves.png").exists() == together
    assert ("share no chart" in (tmp_path / "report.html").read_text()) != together


def test_a_small_search_is_not_taken_for_a_grid(tmp_path: Path) -> None:
    for number, (rate, latent_dim) in enumerate([(0.00058, 2), (0.0012, 8), (0.0031, 2), (0.0047, 8)]):
        _job(tmp_path, number, [f"optimizer.lr={rate}", f"latent_dim={latent_dim}"], -100.0 - number)
    write_results(tmp_path)
    assert _is_picture(tmp_path / "slices.png")
    assert not (tmp_path / "heat_map.png").exists()


def test_an_empty_folder_has_no_results(tmp_path: Path) -> None:
    write_results(tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_sweeps_of_one_folder_do_not_spoil_each_other(tmp_path: Path, tiny_data: list[str]) -> None:
    command = [ROOT / "src" / "train.py", "-m", *tiny_data, "callbacks=none", "seed=0,1"]
    command += ["trainer.max_epochs=8", f"hydra.sweep.dir={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with warm.start(command, env=environment) as one, warm.start(command, env=environment) as other:
        ends = [(*child.communicate(timeout=300), child.returncode) for child in (one, other)]
    for _, err, code in ends:
        assert "Traceback" not in err
        assert code == 0 or "another training is writing into" in err
    again = warm.run(command, env=environment)
    assert again.returncode == 0, again.stderr
    for number in (0, 1):
        with (tmp_path / str(number) / "metrics.csv").open(newline="") as file:
            steps = [int(row["step"]) for row in csv.DictReader(file) if row["val/elbo"]]
        assert steps == [4 * epoch - 1 for epoch in range(1, 9)]
    assert (tmp_path / "results.csv").is_file()


def test_a_signal_ends_the_sweep_and_the_same_command_does_the_rest(tmp_path: Path, tiny_data: list[str]) -> None:
    command = [ROOT / "src" / "train.py", "-m", *tiny_data, "callbacks.gallery=null", "seed=0,1"]
    command += ["data.limit=500", "trainer.max_epochs=20", "callbacks.pictures=null", f"hydra.sweep.dir={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with warm.start(command, env=environment) as child:
        while not (tmp_path / "0" / "checkpoints" / "last.ckpt").exists():
            assert child.poll() is None
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=120)
    assert child.returncode == 143
    assert "job 0: not complete" in out
    assert not (tmp_path / "1").exists()
    again = warm.run(command, env=environment)
    assert again.returncode == 0, again.stderr
    assert "resuming" in again.stdout
    for number in (0, 1):
        assert json.loads((tmp_path / str(number) / "metrics.json").read_text())["epochs"] == 20
