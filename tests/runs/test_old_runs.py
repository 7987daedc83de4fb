"""Runs that version 0.1.0 left are still read, evaluated, continued and refused as that version did it.

``tests/old_runs`` was written by that version: small models of every kind, a sweep whose second job has no metrics
yet, an evaluation, an exported model, and in ``expected.json`` what that version computed with them.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaelab
from tests import warm
from tests.conftest import ROOT, composed
from tests.trainings import rows, weights
from vaelab.commands.evaluate import evaluate
from vaelab.commands.generate import generate
from vaelab.commands.sweep import write_results
from vaelab.commands.train import train
from vaelab.runs import checkpoint, checkpoint_schema, sweep_folder
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime import renamed
from vaelab.runtime.errors import UserError
from vaelab.visualization import report

OLD = ROOT / "tests" / "old_runs"
EXPECTED: dict[str, Any] = json.loads((OLD / "expected.json").read_text())
# Every class that a checkpoint of format 1 can name.
TARGETS = sorted(
    [
        "vaelab.vae.VAE",
        *(f"vaelab.likelihoods.{name}" for name in ("Bernoulli", "SquaredError", "ContinuousBernoulli", "Gaussian")),
        *(f"vaelab.likelihoods.{name}" for name in ("Laplace", "DiscretizedLogistic")),
        *(f"vaelab.priors.{name}" for name in ("StandardNormal", "GaussianMixture", "VampPrior", "RealNVP")),
        *(f"vaelab.posteriors.{name}" for name in ("DiagonalGaussian", "FullGaussian", "InverseAutoregressiveFlow")),
        *(f"vaelab.objectives.{name}" for name in ("ELBO", "IWAE", "MMD", "Autoencoder", "BetaTCVAE", "BetaVAE")),
        *(f"vaelab.objectives.{name}" for name in ("Capacity", "DReG", "FreeBits", "Warmup")),
        *(f"vaelab.networks.conv.Conv{part}coder" for part in ("En", "De")),
        *(f"vaelab.networks.resnet.ResNet{part}coder" for part in ("En", "De")),
        *(f"vaelab.networks.mlp.MLP{part}coder" for part in ("En", "De")),
        "vaelab.networks.layers.glorot",
        "vaelab.data.datamodule.ImageDataModule",
        *(f"vaelab.data.{name}" for name in ("digits.Digits", "mnist.MNIST", "cifar10.CIFAR10")),
        "vaelab.data.image_folder.ImageFolder",
    ]
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the old runs."""
    return shutil.copytree(OLD, tmp_path / "old")


@pytest.mark.parametrize("name", EXPECTED)
def test_a_model_computes_what_it_computed_then(name: str) -> None:
    model, expected = vaelab.load(OLD / name), EXPECTED[name]
    labels = [0, 1, 2] if model.classes else None
    np.testing.assert_allclose(model.sample(3).mean((1, 2, 3)), expected["sample_means"], rtol=1e-5)
    i, _, row, column = np.indices((3, 1, 28, 28))
    images = ((7 * i + 3 * row + 5 * column + i * column) % 11 / 10).astype("float32")
    if model.config["data"]["binarize"] != "none":
        images = (images > 0.45).astype("float32")
    np.testing.assert_allclose(model.encode(images, labels), expected["codes"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(model.score(images, labels, samples=4), expected["scores"], rtol=1e-4)


def test_an_exported_model_is_the_model_of_the_run() -> None:
    pytest.importorskip("safetensors")
    np.testing.assert_array_equal(vaelab.load(OLD / "exported").sample(4), vaelab.load(OLD / "mlp").sample(4))


@pytest.mark.parametrize("target", TARGETS)
def test_every_old_name_is_one_of_this_package(target: str) -> None:
    assert checkpoint_schema.named(renamed.new_name(target)) is not None


def test_renaming_admits_nothing_else(tmp_path: Path) -> None:
    contents = torch.load(OLD / "mlp" / "checkpoints" / "last.ckpt", weights_only=True)
    for target in ("os.system", "vaelab.callbacks.checkpoints.Checkpoint", "vaelab.likelihoods.torch.hub.load"):
        contents["vaelab"]["config"]["module"]["vae"]["likelihood"] = {"_target_": target}
        torch.save(contents, tmp_path / "foreign.ckpt")
        with pytest.raises(UserError, match="was refused: its configuration names"):
            checkpoint.rebuild(tmp_path / "foreign.ckpt")


def test_an_old_run_is_evaluated_and_drawn(old: Path, tiny_data: list[str]) -> None:
    cache = tiny_data[0].partition("=")[2]
    options = (f"run={old / 'conv'}", f"data_dir={cache}")
    found = evaluate(composed("evaluate", *options, f"run_dir={old / 'again'}", "what=latents", "report=false"))
    then = RunFolder(old / "evaluation").evaluation
    assert then["metrics"].keys() >= {"test/elbo", "latents/active_units"}
    for name in ("test/elbo", "test/kl", "test/reconstruction"):
        assert found["metrics"][name]["value"] == pytest.approx(then["metrics"][name]["value"], rel=1e-5), name
    files = generate(composed("generate", *options, f"run_dir={old / 'images'}", "what=samples"))
    assert [path.name for path in files] == ["samples.png"]
    assert "test/elbo" in report.write(old / "evaluation").read_text() or (old / "evaluation" / "report.html").is_file()
    assert report.write(old / "mlp").is_file()


def test_an_old_run_is_resumed_bit_for_bit(old: Path, tmp_path: Path, tiny_data: list[str]) -> None:
    """Epochs three and four after two of the old version are those of four of this one."""
    typed = [text for text in RunFolder(old / "mlp").config["overrides"] if "max_epochs" not in text]
    typed = [tiny_data[0], *typed[1:], "trainer.max_epochs=4"]
    train(composed("train", *typed, f"ckpt_path={old / 'mlp'}", f"run_dir={old / 'mlp'}"))
    train(composed("train", *typed, f"run_dir={tmp_path / 'whole'}"))
    whole = weights(tmp_path / "whole")
    resumed = weights(old / "mlp")
    assert all(torch.allclose(resumed[name], whole[name], atol=1e-6) for name in whole)
    assert [row["step"] for row in rows(old / "mlp")] == [row["step"] for row in rows(tmp_path / "whole")]


def test_other_settings_are_refused_as_before(old: Path, tiny_data: list[str]) -> None:
    typed = [tiny_data[0], *RunFolder(old / "mlp").config["overrides"][1:], "trainer.max_epochs=4"]
    with pytest.raises(UserError, match=r"other settings.*likelihoods\.Bernoulli"):
        train(composed("train", *typed, "loss=mse", f"ckpt_path={old / 'mlp'}", f"run_dir={old / 'mlp'}"))


def test_an_old_sweep_is_continued(old: Path, tiny_data: list[str]) -> None:
    overrides = RunFolder(old / "sweep" / "0").config["overrides"]
    fixed = [tiny_data[0], *(text for text in overrides[1:] if not text.startswith("latent_dim="))]
    done = warm.run(["src/train.py", "-m", *fixed, "latent_dim=1,2", f"hydra.sweep.dir={old / 'sweep'}"], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"{old / 'sweep' / '0'} is complete" in done.stdout
    jobs = sweep_folder.read(old / "sweep")
    assert [job.status for job in jobs] == ["done", "done"]
    write_results(old / "sweep")
    assert "latent_dim" in (old / "sweep" / "results.md").read_text()


def test_old_names_can_still_be_imported() -> None:
    script = (
        "from vaelab.likelihoods import Bernoulli; from vaelab.callbacks.stopwatch import Stopwatch; print(Bernoulli)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script], cwd=ROOT / "src", capture_output=True, text=True
    )
    assert done.stdout.strip() == "<class 'vaelab.models.likelihoods.Bernoulli'>", done.stderr
    assert "vaelab.likelihoods has moved: its name is vaelab.models.likelihoods" in done.stderr


def test_settings_of_folders_that_came_later_mean_what_was_before() -> None:
    """``splits`` and ``pixel_range``: without them, a folder was read as it is with ``null`` now."""
    old = {"data": {"source": {"_target_": "vaelab.data.image_folder.ImageFolder", "folder": "a"}}}
    assert renamed.up_to_date(old)["data"]["source"] == {**old["data"]["source"], "splits": None, "pixel_range": None}
    chosen = {"_target_": "vaelab.data.image_folder.ImageFolder", "splits": "auto", "pixel_range": [0, 1]}
    assert renamed.up_to_date(chosen) == chosen
