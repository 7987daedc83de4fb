"""The commands as a user types them, each in a process of its own, from a folder that is not the project's."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import warm
from tests.conftest import ROOT

TINY = [
    "model=mlp",
    "data.limit=64",
    "data.batch_size=16",
    "trainer.max_epochs=2",
    "callbacks.pictures.every_n_epochs=1",
]


def run(script: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs ``python src/<script>.py`` without an install, a key or a home for W&B."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "HYDRA", "PYTHON"))
    }
    words = [ROOT / "src" / f"{script}.py", *arguments]
    return warm.run(words, cwd=cwd, env={**environment, "HOME": str(cwd), **variables})


def records(run_dir: Path) -> list[dict[str, Any]]:
    """What the one offline W&B run of a run folder holds."""
    files = list(run_dir.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 1
    done = warm.run(["-m", "wandb", "leet", "inspect", "--json", files[0]])
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def history(of: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Every value that was logged, by name."""
    values: dict[str, list[Any]] = {}
    for record in of:
        if record["type"] == "history":
            for name, value in record["history"]["item"].items():
                values.setdefault(name, []).append(value)
    return values


def is_picture(path: Path) -> bool:
    """Neither black, nor one colour, nor a few stray pixels."""
    pixels = np.asarray(Image.open(path).convert("L"))
    return bool(pixels.std() > 10 and pixels.max() > 128)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run folder with everything that the defaults leave in it."""
    home = tmp_path_factory.mktemp("home")
    run_dir = home / "run"
    return run_dir, run("train", *TINY, f"hydra.run.dir={run_dir}", "latent_dim=3", cwd=home)


def test_train_ends_with_a_table_and_the_run_folder(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run_dir, done = trained
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    assert "latent_dim=3" in done.stdout
    assert "left" in done.stdout  # the time left, epoch by epoch
    assert "test/elbo" in done.stdout
    assert done.stdout.strip().splitlines()[-1].startswith("run folder:")
    for file in ("config.yaml", "train.log", "metrics.csv", "metrics.json", "checkpoints/best.ckpt", "latents.npz"):
        assert (run_dir / file).is_file(), file
    command = f"python src/train.py {' '.join(TINY)} latent_dim=3"
    assert f"<code>{command}</code>" in (run_dir / "report.html").read_text()
    log = (run_dir / "train.log").read_text()
    for said in ("latent_dim=3", "epoch 2/2: val/elbo", "test/elbo", "run folder:"):
        assert said in log, said
    for picture in (run_dir / "pictures").glob("*.png"):
        assert is_picture(picture), picture


def test_wandb_has_the_figures_the_choices_and_pictures_that_are_not_black(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run_dir, _ = trained
    logged = records(run_dir)
    values = history(logged)
    figures = json.loads((run_dir / "metrics.json").read_text())
    for split in ("train", "val", "test"):
        for term in ("loss", "elbo", "reconstruction", "kl"):
            assert all(np.isfinite(values[f"{split}/{term}"])), f"{split}/{term}"
    assert len(values["val/elbo"]) == 2
    assert values["test/elbo"][-1] == pytest.approx(figures["test/elbo"])
    config = next(record["config"]["update"] for record in logged if "latent_dim" in str(record.get("config")))
    chosen = {name: config[name] for name in ("model", "loss", "data", "prior", "latent_dim", "seed")}
    assert chosen == {
        "model": "mlp",
        "loss": "bce",
        "data": "digits",
        "prior": "standard_normal",
        "latent_dim": 3,
        "seed": 0,
    }
    assert config["config"]["trainer"]["max_epochs"] == 2
    for name in ("val/reconstructions", "val/samples", "test/reconstructions", "test/samples"):
        for files in values[f"{name}.filenames"]:
            for file in files:
                assert is_picture(next(run_dir.glob(f"wandb/offline-run-*/files/{file}"))), file
    assert next(record["exit"]["exit_code"] for record in logged if record["type"] == "exit") == 0


def test_evaluate_gives_the_same_figures(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    run_dir, _ = trained
    typed = (f"run={run_dir}", "what=[latents,reconstructions]", f"hydra.run.dir={tmp_path / 'out'}")
    done = run("evaluate", *typed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trained_figures = json.loads((run_dir / "metrics.json").read_text())
    evaluated = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    for name in ("test/elbo", "test/reconstruction", "test/kl"):
        assert evaluated["metrics"][name]["value"] == trained_figures[name]
        assert name in done.stdout
    assert "latents/active_units" in done.stdout
    assert "what=[latents,reconstructions]" in (tmp_path / "out" / "report.html").read_text().replace("&#39;", "")


def test_a_key_is_in_no_file_of_a_run(tmp_path: Path) -> None:
    key = "0123456789abcdef" * 2 + "01234567"
    run_dir = tmp_path / "run"
    done = run("train", *TINY, f"hydra.run.dir={run_dir}", cwd=tmp_path, WANDB_API_KEY=key)
    assert done.returncode == 0, done.stderr
    evaluated = ("what=[]", f"run={run_dir}", f"hydra.run.dir={run_dir}/evaluation")
    assert run("evaluate", *evaluated, cwd=tmp_path, WANDB_API_KEY=key).returncode == 0
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        assert key.encode() not in path.read_bytes(), path
    assert key not in done.stdout + done.stderr


def test_generate_draws_pictures(trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    run_dir, _ = trained
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    done = run("generate", f"run={checkpoint}", "count=9", f"hydra.run.dir={tmp_path / 'out'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("samples", "reconstructions", "interpolation"):
        assert is_picture(tmp_path / "out" / f"{name}.png")


def test_export_leaves_what_torch_alone_can_load(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    run_dir, _ = trained
    done = run("export", f"run={run_dir}", "format=torch_export", f"hydra.run.dir={tmp_path / 'out'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "encoder.pt2: images [1, 28, 28] to mean [3], log_variance [3], within " in done.stdout
    decoder = f"torch.export.load({str(tmp_path / 'out' / 'decoder.pt2')!r}).module()"
    code = f"import torch; print({decoder}(latents=torch.zeros(5, 3))['pictures'].shape)"
    (tmp_path / "alone.py").write_text(code)
    alone = warm.run([tmp_path / "alone.py"], cwd=tmp_path)
    assert alone.stdout == "torch.Size([5, 1, 28, 28])\n", alone.stderr


def test_a_sweep_keeps_its_jobs_apart_and_survives_one_that_fails(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    typed = ("-m", *TINY, "callbacks.pictures.count=4", "latent_dim=2,-1,3", f"hydra.sweep.dir={sweep}")
    done = run("train", *typed, cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 3 jobs failed" in done.stderr
    assert "Traceback" not in done.stderr
    ids, groups = set(), set()
    for number, latent_dim in ((0, 2), (2, 3)):
        run_dir = sweep / str(number)
        assert json.loads((run_dir / "metrics.json").read_text())["epochs"] == 2
        logged = records(run_dir)
        described = next(record["run"] for record in logged if record["type"] == "run")
        ids.add(described["run_id"])
        groups.add(described["run_group"])
        assert len(history(logged)["test/elbo"]) == 1
        assert f"'latent_dim': {latent_dim}" in str(logged)
    assert len(ids) == 2
    assert groups == {"sweep"}
    assert not (sweep / "1" / "metrics.json").exists()
    with (sweep / "results.csv").open() as file:
        ranked = list(csv.DictReader(file))
    assert [row["status"].partition(":")[0] for row in ranked] == ["done", "done", "failed"]
    assert float(ranked[0]["val/elbo"]) > float(ranked[1]["val/elbo"])
    assert "latent_dim=-1: it must be a positive integer" in ranked[2]["status"]
    assert "latent_dim=-1" in (sweep / "results.md").read_text()
    for text in ('href="0/report.html"', 'href="2/report.html"', "latent_dim=-1: it must be a positive integer"):
        assert text in (sweep / "report.html").read_text()
    for name in ("curves", "rate_distortion"):
        assert is_picture(sweep / f"{name}.png")

    again = run("train", *typed, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stdout.count("is complete") == 2
    other = run("train", *typed, "seed=5", cwd=tmp_path)
    assert "holds a run with other settings, data.seed=0 seed=0" in other.stderr
    with (sweep / "results.csv").open() as file:
        assert [row["val/elbo"] for row in csv.DictReader(file)] == [row["val/elbo"] for row in ranked]


def test_a_crash_ends_its_wandb_run(tmp_path: Path) -> None:
    """Whatever ends the training, its run is closed, and marked as failed."""
    crash = "optimizer.lr=-1"  # noticed when the training begins, after its W&B run has
    done = run("train", *TINY, crash, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode != 0
    logged = records(tmp_path / "run")
    assert next(record["exit"]["exit_code"] for record in logged if record["type"] == "exit") == 1


def test_wandb_online_without_a_key_says_what_to_do(tmp_path: Path) -> None:
    done = run("train", *TINY, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path, WANDB_MODE="online")
    assert done.returncode != 0
    assert "WANDB_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr


def test_latest_is_continued(tmp_path: Path) -> None:
    """From a copy of the scripts, so that the project's own latest run stays what it is."""
    for name in ("src", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    train = [tmp_path / "src" / "train.py", *TINY[:-1], "logger=csv", "callbacks=none"]
    for more in ([], ["ckpt_path=latest", "trainer.max_epochs=3"]):
        done = warm.run([*train, *more], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "resuming" in done.stdout
    latest = tmp_path / "logs" / "train" / "latest"
    assert json.loads((latest / "metrics.json").read_text())["epochs"] == 3
    assert len(list((tmp_path / "logs" / "train" / "runs").iterdir())) == 2


def test_missing_packages_are_named_in_one_line(tmp_path: Path) -> None:
    """Of an interpreter without site-packages."""
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(ROOT / "src" / "train.py")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: hydra is not installed here")
    assert len(done.stderr.strip().splitlines()) == 1
