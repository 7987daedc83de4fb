"""Trainings from their configuration to their figures, in this process."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainings import retested, rows, same, trained, weights
from vaelab.models.networks.mlp import MLPDecoder
from vaelab.models.vae import VAE
from vaelab.objectives import ELBO
from vaelab.runtime.errors import UserError
from vaelab.training.schedulers import plateau


def test_a_run_folder_holds_everything(tmp_path: Path, tiny_data: list[str]) -> None:
    figures = trained(tmp_path, *tiny_data)
    for file in (
        "config.yaml",
        "metrics.csv",
        "metrics.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "pictures/reconstructions.png",
        "pictures/samples.png",
    ):
        assert (tmp_path / file).is_file(), file
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored == figures
    for name in ("test/elbo", "test/reconstruction", "test/kl", "val/elbo", "parameters", "epochs", "seconds"):
        assert isinstance(stored[name], (int, float)), name
    assert stored["test/elbo"] == pytest.approx(-(stored["test/reconstruction"] + stored["test/kl"]), rel=1e-5)
    assert stored["unit"] == "not nats"  # bce on grey pixels
    assert stored["images_per_second"] > 0
    columns = set(rows(tmp_path)[0])
    terms = {
        f"{split}/{term}" for split in ("train", "val", "test") for term in ("loss", "elbo", "reconstruction", "kl")
    }
    assert terms | {"lr", "epoch", "step"} == columns


def test_training_figures_are_means_over_all_steps(tmp_path: Path, tiny_data: list[str]) -> None:
    """With a learning rate of zero every epoch's mean is that of the same model, and every step counts once."""
    trained(tmp_path, *tiny_data, "optimizer=sgd", "optimizer.lr=0", "trainer.log_every_n_steps=3")
    losses = [(int(row["step"]), float(row["train/kl"])) for row in rows(tmp_path) if row["train/kl"]]
    assert [step for step, _ in losses] == [2, 3, 6, 7]  # three steps and one, in each of two epochs
    means = [(3 * losses[i][1] + losses[i + 1][1]) / 4 for i in (0, 2)]
    assert means[0] == pytest.approx(means[1], rel=1e-4)


@pytest.mark.parametrize("seed", [0, 7])
def test_one_seed_one_result(tmp_path: Path, tiny_data: list[str], seed: int) -> None:
    figures = [trained(tmp_path / name, *tiny_data, f"seed={seed}") for name in ("a", "b")]
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert figures[0]["test/elbo"] == figures[1]["test/elbo"]
    trained(tmp_path / "c", *tiny_data, f"seed={seed + 1}")
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_the_best_epoch_is_tested_unless_validation_is_the_test(tmp_path: Path, tiny_data: list[str]) -> None:
    """A learning rate that destroys the model makes the first epoch the best."""
    options = [
        *tiny_data,
        "optimizer=sgd",
        "optimizer.lr=3e-3",
        "trainer.max_epochs=3",
        "trainer.gradient_clip_val=1e4",
    ]
    figures = trained(tmp_path / "carved", *options)
    validated = [float(row["val/elbo"]) for row in rows(tmp_path / "carved") if row["val/elbo"]]
    assert figures["val/elbo"] == pytest.approx(max(validated), rel=1e-6)
    assert figures["tested"] == "the best epoch on validation images"
    figures = trained(tmp_path / "official", *options, "data.validation=test")
    validated = [float(row["val/elbo"]) for row in rows(tmp_path / "official") if row["val/elbo"]]
    assert figures["tested"] == "the last epoch"
    assert figures["val/elbo"] == pytest.approx(validated[-1], rel=1e-6)
    assert figures["test/elbo"] == pytest.approx(validated[-1], rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        ["scheduler=cosine", "scheduler.warmup=0.2"],
        ["scheduler=plateau", "scheduler.patience=0"],
        ["callbacks=early_stopping", "callbacks.early_stopping.patience=1"],
        ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0"],
        ["accelerator=cpu_bf16"],
        ["trainer.max_epochs=-1", "trainer.max_steps=5"],
        ["logger=none", "callbacks=none"],
        ["logger=tensorboard"],
        ["debug=fast"],
    ],
    ids=lambda options: " ".join(options),
)
def test_what_a_training_can_be_told(tmp_path: Path, tiny_data: list[str], options: list[str]) -> None:
    figures = trained(tmp_path, *tiny_data, *options)
    assert -600 < figures["test/elbo"] < 0


def test_an_objective_is_told_how_many_images_there_are(tmp_path: Path, tiny_data: list[str]) -> None:
    """In the training and in the evaluation of its checkpoint, which gives the same figures."""
    figures = trained(tmp_path, *tiny_data, "objective=beta_tc", "callbacks.pictures=null", "callbacks.gallery=null")
    evaluated = retested(tmp_path)
    parts = ("test/mutual_information", "test/total_correlation", "test/dimension_kl")
    assert sum(figures[name] for name in parts) == pytest.approx(figures["test/kl"], rel=1e-4)
    for name in ("test/loss", *parts):
        assert evaluated[name] == figures[name]


@pytest.mark.parametrize(
    ("objective", "monitor"),
    [
        *((name, "loss") for name in ("autoencoder", "beta", "beta_tc", "free_bits", "mmd")),
        ("capacity", "reconstruction"),
        *((name, "iwae") for name in ("iwae", "dreg")),
    ],
)
def test_the_best_epoch_is_that_of_the_objectives_own_figure(
    tmp_path: Path, tiny_data: list[str], objective: str, monitor: str
) -> None:
    figures = trained(tmp_path, *tiny_data, f"objective={objective}", "trainer.max_epochs=3", "callbacks=none")
    validated = [float(row[f"val/{monitor}"]) for row in rows(tmp_path) if row[f"val/{monitor}"]]
    best = max(validated) if monitor == "iwae" else min(validated)
    assert figures[f"val/{monitor}"] == pytest.approx(best, rel=1e-5)


def test_cosine_schedule_ends_at_zero(tmp_path: Path, tiny_data: list[str]) -> None:
    trained(tmp_path, *tiny_data, "scheduler=cosine", "scheduler.warmup=0.25", "trainer.log_every_n_steps=1")
    rates = [float(row["lr"]) for row in rows(tmp_path) if row["lr"]]
    assert len(rates) == 8
    assert rates[0] < max(rates)  # warm-up
    assert rates[-1] == 0


def test_early_stopping_stops(tmp_path: Path, tiny_data: list[str]) -> None:
    stop = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=0", "optimizer=sgd"]
    assert trained(tmp_path, *tiny_data, *stop, "trainer.max_epochs=20")["epochs"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["latent_dim=-1"], "latent_dim=-1: it must be a positive integer"),
        (["latent_dim=two"], "latent_dim=two"),
        (["seed=-1"], "seed=-1"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0"),
        (["trainer.max_epochs=-1"], "both unlimited"),
        (["trainer.precision=16-mixed"], "needs a GPU.*accelerator=cpu_bf16"),
        (["data.batch_size=0"], "data.batch_size=0: it must be a positive integer; type e.g. data.batch_size=128"),
        (["ckpt_path=/no/such/file.ckpt"], "does not exist"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    tmp_path: Path, tiny_data: list[str], options: list[str], message: str
) -> None:
    with pytest.raises(Exception, match=message) as caught:
        trained(tmp_path, *tiny_data, *options)
    cause = caught.value.__cause__ if "instantiation" in type(caught.value).__name__.lower() else caught.value
    assert isinstance(cause, UserError)
    assert "\n" not in str(cause)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [(["callbacks=early_stopping"], "callbacks=early_stopping"), (["scheduler=plateau"], "scheduler=plateau")],
)
def test_nothing_is_chosen_by_test_images(options: list[str], said: str, tmp_path: Path, tiny_data: list[str]) -> None:
    with pytest.raises(UserError, match=f"{said} chooses by validation images"):
        trained(tmp_path, *tiny_data, *options, "data.validation=test")


def test_plateau_counts_nats_and_not_fractions_of_a_negative_bound() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = plateau(optimizer, 0, factor=0.5, patience=0)["scheduler"]
    for elbo in (-100.0, -100.005, -100.005):
        scheduler.step(elbo)
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_a_training_that_ends_within_an_epoch_is_validated_there(tmp_path: Path, tiny_data: list[str]) -> None:
    options = ["trainer.max_epochs=-1", "trainer.max_steps=6", "data.validation=test", "callbacks=none"]
    figures = trained(tmp_path, *tiny_data, *options)
    assert figures["val/elbo"] == pytest.approx(figures["test/elbo"], rel=1e-6)
    assert [int(row["step"]) for row in rows(tmp_path) if row["train/loss"]] == [3, 5]


def test_clipping_goes_with_mixed_precision(tmp_path: Path, tiny_data: list[str]) -> None:
    figures = trained(tmp_path, *tiny_data, "accelerator=cpu_bf16", "trainer.gradient_clip_val=1.0", "callbacks=none")
    assert figures["epochs"] == 2


def test_no_checkpoint_is_chosen_by_test_images(tmp_path: Path, tiny_data: list[str]) -> None:
    figures = trained(tmp_path, *tiny_data, "data.validation=test", "optimizer=sgd", "optimizer.lr=3e-3")
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert retested(tmp_path)["test/elbo"] == figures["test/elbo"]


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, "optimizer=sgd", "trainer.log_every_n_steps=3"]
    with pytest.raises(UserError, match=r"in step [2-6] (is|are) not finite.*optimizer\.lr"):
        trained(tmp_path / "bad", *options, "optimizer.lr=1e30")
    assert not list((tmp_path / "bad").glob("checkpoints/*.ckpt"))  # there was no good state yet


def test_bad_steps_can_be_skipped(tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = ELBO.forward, []

    def failing_once(self: ELBO, vae: VAE, *batch: Any) -> dict[str, torch.Tensor]:
        terms = forward(self, vae, *batch)
        calls.extend([1] if vae.training else [])
        return {**terms, "loss": terms["loss"] * (float("inf") if len(calls) == 3 and vae.training else 1)}

    monkeypatch.setattr(ELBO, "forward", failing_once)
    with pytest.raises(UserError, match=r"loss in step 3 is not finite"):
        trained(tmp_path / "stopped", *tiny_data)
    calls.clear()
    figures = trained(tmp_path / "skipped", *tiny_data, "module.bad_numbers=skip")
    assert figures["steps"] == 8
    assert all(value.isfinite().all() for value in weights(tmp_path / "skipped").values())
    assert {row["train/skipped_steps"] for row in rows(tmp_path / "skipped") if row["train/loss"]} == {"1"}


class _Ended(MLPDecoder):
    """A decoder that ends as those of most programs do."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(z).sigmoid()


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_decoder_that_ends_in_a_sigmoid_is_warned_of(
    is_ended: bool, tmp_path: Path, tiny_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    decoder = [f"module.vae.decoder._target_={__name__}.{_Ended.__name__}"] if is_ended else []
    trained(tmp_path, *tiny_data, *decoder, "callbacks=none", "trainer.max_epochs=1")
    assert ("as if it ended in a sigmoid" in caplog.text) == is_ended


def test_a_clock_that_goes_backwards_disturbs_nothing(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    ticks = itertools.count()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * next(ticks))
    figures = trained(tmp_path, *tiny_data)
    assert figures["epochs"] == 2
    assert 0 < figures["seconds"] < 600
    assert figures["images_per_second"] > 0
    assert len([row for row in rows(tmp_path) if row["val/elbo"]]) == 2


def test_what_is_left_out_of_the_images_is_said(
    tmp_path: Path, tiny_data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, *tiny_data, "trainer.limit_train_batches=0.5", "trainer.limit_test_batches=1")
    said = capsys.readouterr().out.replace("\n", " ")
    assert "64 images to train with (trainer.limit_train_batches=0.5), 64 to validate on" in said
    assert "on 64 test images (trainer.limit_test_batches=1)" in said
