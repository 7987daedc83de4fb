"""Every named experiment runs as a user runs it, but for its length and its images."""

import csv
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT, composed
from tests.files import write_cifar10, write_mnist, write_pictures
from vaelab.commands.train import train

sys.path.insert(0, str(ROOT / "benchmarks"))
import likelihoods
import reproduce
import runs
from reproduce import STEPS, changed, step_folders

EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml"))
GALLERY = {
    *("reconstructions.png", "samples.png", "class_reconstructions.png", "latents.png", "errors.png", "manifold.png"),
    *("losses.png", "path.png", "samples.gif", "manifold.gif"),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(folder / name / "raw", 80)
    write_cifar10(folder / "cifar-10-batches-bin")
    write_pictures(folder / "pictures")
    return folder


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(
    experiment: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    cfg = composed(
        "train",
        f"experiment={experiment}",
        f"run_dir={tmp_path}",
        "trainer.max_epochs=1",
        "trainer.max_steps=4",
        "logger=csv",
    )
    cfg.data.batch_size = 20
    cfg.data.limit = 60
    if cfg.data.validation != "test":
        cfg.data.validation = 10
    if "folder" in cfg.data.source:
        cfg.data.source.folder, cfg.data.source.cache_dir = str(data_dir / "pictures"), str(tmp_path)
    if experiment.endswith("_512"):  # seconds a step
        cfg.module.vae.encoder.channels = cfg.module.vae.decoder.channels = [8, 8]
    figures = train(cfg)
    assert json.loads((tmp_path / "metrics.json").read_text()) == figures
    assert 1 <= figures["steps"] <= 4
    with (tmp_path / "metrics.csv").open() as file:
        assert any(row["val/loss"] for row in csv.DictReader(file))
    if not cfg.callbacks.get("pictures"):
        return
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    if "samples_animation" not in cfg.callbacks:
        assert pictures >= {"samples.png"}
    else:  # and where there are classes, their difference
        assert pictures >= GALLERY | ({"arithmetic.png"} if cfg.data.classes else set())


@pytest.mark.parametrize("experiment", sorted(STEPS))
def test_the_changes_that_are_counted_make_up_the_better_experiment(experiment: str) -> None:
    better = composed("train", f"experiment={experiment}_better", "run_dir=.")
    assert composed("train", *changed(experiment, len(STEPS[experiment])), "run_dir=.") == better
    assert len(step_folders(experiment)) == len(STEPS[experiment]) + 1


@pytest.mark.parametrize("script", [reproduce, likelihoods])
def test_results_of_runs_that_are_not_here_stay(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "RUNS", tmp_path)
    written = (runs.RESULTS / f"{script.__name__}.md").read_text()
    again = script.table({}, written) if script is reproduce else script.table(written)
    assert again == written


def test_results_of_runs_that_are_here_take_the_place_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "RUNS", tmp_path)
    (tmp_path / "metrics.csv").write_text("val/elbo\n-180.0\n")
    (tmp_path / "metrics.json").write_text('{"images_per_second": 6000.0}')
    (tmp_path / "train.log").touch()
    written = (runs.RESULTS / "reproduce.md").read_text()
    lines = reproduce.table({"tensorflow_mnist": [tmp_path]}, written).splitlines()
    new = [line for line in lines if line not in written.splitlines()]
    assert len(new) == 1
    assert "`experiment=tensorflow_mnist` | test elbo | 1 |" in new[0]
    assert new[0].endswith("| -180.00 | 1 | 10.0 |")
    gone = [line for line in written.splitlines() if line not in lines]
    assert len(gone) == 3
    assert all("`experiment=tensorflow_mnist` | test elbo" in line for line in gone)
