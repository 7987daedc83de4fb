"""Trainings from their configuration to their figures, in this process."""

import csv
import errno
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import composed
from vaelab import loggers
from vaelab.callbacks.checkpoints import WholeFiles
from vaelab.errors import UserError
from vaelab.evaluation import evaluate
from vaelab.mistakes import explain
from vaelab.module import VAEModule
from vaelab.networks.mlp import MLPDecoder
from vaelab.objectives import ELBO
from vaelab.resuming import alone
from vaelab.schedulers import plateau
from vaelab.training import train
from vaelab.vae import VAE


def _train(run_dir: Path, *overrides: str) -> dict[str, Any]:
    return train(composed("train", f"run_dir={run_dir}", *overrides))


def _tested(run_dir: Path) -> dict[str, float]:
    """The test figures again, from the checkpoint alone."""
    options = (f"run={run_dir}", f"run_dir={run_dir / 'evaluation'}", "what=[]")
    return {name: figure["value"] for name, figure in evaluate(composed("evaluate", *options))["figures"].items()}


def _weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def _rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_folder_holds_everything(tmp_path: Path, tiny_data: list[str]) -> None:
    figures = _train(tmp_path, *tiny_data)
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
    columns = set(_rows(tmp_path)[0])
    terms = {
        f"{split}/{term}" for split in ("train", "val", "test") for term in ("loss", "elbo", "reconstruction", "kl")
    }
    assert terms | {"lr", "epoch", "step"} == columns


def test_training_figures_are_means_over_all_steps(tmp_path: Path, tiny_data: list[str]) -> None:
    """With a learning rate of zero every epoch's mean is that of the same model, and every step counts once."""
    _train(tmp_path, *tiny_data, "optimizer=sgd", "optimizer.lr=0", "trainer.log_every_n_steps=3")
    losses = [(int(row["step"]), float(row["train/kl"])) for row in _rows(tmp_path) if row["train/kl"]]
    assert [step for step, _ in losses] == [2, 3, 6, 7]  # three steps and one, in each of two epochs
    means = [(3 * losses[i][1] + losses[i + 1][1]) / 4 for i in (0, 2)]
    assert means[0] == pytest.approx(means[1], rel=1e-4)


@pytest.mark.parametrize("seed", [0, 7])
def test_one_seed_one_result(tmp_path: Path, tiny_data: list[str], seed: int) -> None:
    figures = [_train(tmp_path / name, *tiny_data, f"seed={seed}") for name in ("a", "b")]
    assert _same(_weights(tmp_path / "a"), _weights(tmp_path / "b"))
    assert figures[0]["test/elbo"] == figures[1]["test/elbo"]
    _train(tmp_path / "c", *tiny_data, f"seed={seed + 1}")
    assert not _same(_weights(tmp_path / "a"), _weights(tmp_path / "c"))


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_resuming_is_as_if_it_had_never_stopped(tmp_path: Path, tiny_data: list[str], binarize: str) -> None:
    options = [*tiny_data, f"data.binarize={binarize}"]
    whole = _train(tmp_path / "whole", *options, "trainer.max_epochs=4")
    _train(tmp_path / "first", *options)
    resumed = _train(tmp_path / "second", *options, "trainer.max_epochs=4", f"ckpt_path={tmp_path / 'first'}")
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "second"))
    assert resumed["epochs"] == 4
    assert resumed["val/elbo"] == whole["val/elbo"]
    assert resumed["unit"] == ("not nats" if binarize == "none" else "nats")


def test_the_best_epoch_is_tested_unless_validation_is_the_test(tmp_path: Path, tiny_data: list[str]) -> None:
    """A learning rate that destroys the model makes the first epoch the best."""
    options = [
        *tiny_data,
        "optimizer=sgd",
        "optimizer.lr=3e-3",
        "trainer.max_epochs=3",
        "trainer.gradient_clip_val=1e4",
    ]
    figures = _train(tmp_path / "carved", *options)
    validated = [float(row["val/elbo"]) for row in _rows(tmp_path / "carved") if row["val/elbo"]]
    assert figures["val/elbo"] == pytest.approx(max(validated), rel=1e-6)
    assert figures["tested"] == "the best epoch on validation images"
    figures = _train(tmp_path / "official", *options, "data.validation=test")
    validated = [float(row["val/elbo"]) for row in _rows(tmp_path / "official") if row["val/elbo"]]
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
    figures = _train(tmp_path, *tiny_data, *options)
    assert -600 < figures["test/elbo"] < 0


def test_an_objective_is_told_how_many_images_there_are(tmp_path: Path, tiny_data: list[str]) -> None:
    """In the training and in the evaluation of its checkpoint, which gives the same figures."""
    trained = _train(tmp_path, *tiny_data, "objective=beta_tc", "callbacks.pictures=null", "callbacks.gallery=null")
    evaluated = _tested(tmp_path)
    parts = ("test/mutual_information", "test/total_correlation", "test/dimension_kl")
    assert sum(trained[name] for name in parts) == pytest.approx(trained["test/kl"], rel=1e-4)
    for name in ("test/loss", *parts):
        assert evaluated[name] == trained[name]


def test_a_warm_up_goes_on_where_it_was(tmp_path: Path, tiny_data: list[str]) -> None:
    """16 steps, of which the warm-up takes 12; the training stops after 8 of them."""
    options = [*tiny_data, "objective=beta", "module.objective.warmup.steps=12", "callbacks=none", "logger=csv"]
    whole = _train(tmp_path / "whole", *options, "trainer.max_epochs=4")
    _train(tmp_path / "first", *options)
    resumed = _train(tmp_path / "second", *options, "trainer.max_epochs=4", f"ckpt_path={tmp_path / 'first'}")
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "second"))
    assert resumed["val/loss"] == whole["val/loss"]


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
    figures = _train(tmp_path, *tiny_data, f"objective={objective}", "trainer.max_epochs=3", "callbacks=none")
    validated = [float(row[f"val/{monitor}"]) for row in _rows(tmp_path) if row[f"val/{monitor}"]]
    best = max(validated) if monitor == "iwae" else min(validated)
    assert figures[f"val/{monitor}"] == pytest.approx(best, rel=1e-5)


def test_cosine_schedule_ends_at_zero(tmp_path: Path, tiny_data: list[str]) -> None:
    _train(tmp_path, *tiny_data, "scheduler=cosine", "scheduler.warmup=0.25", "trainer.log_every_n_steps=1")
    rates = [float(row["lr"]) for row in _rows(tmp_path) if row["lr"]]
    assert len(rates) == 8
    assert rates[0] < max(rates)  # warm-up
    assert rates[-1] == 0


def test_early_stopping_stops(tmp_path: Path, tiny_data: list[str]) -> None:
    stop = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=0", "optimizer=sgd"]
    assert _train(tmp_path, *tiny_data, *stop, "trainer.max_epochs=20")["epochs"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["latent_dim=-1"], "latent_dim=-1: it must be a positive integer"),
        (["latent_dim=two"], "latent_dim=two"),
        (["seed=-1"], "seed=-1"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0"),
        (["trainer.max_epochs=-1"], "both unlimited"),
        (["trainer.precision=16-mixed"], "needs a GPU.*accelerator=cpu_bf16"),
        (["data.batch_size=0"], "data.batch_size"),
        (["ckpt_path=/no/such/file.ckpt"], "does not exist"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    tmp_path: Path, tiny_data: list[str], options: list[str], message: str
) -> None:
    with pytest.raises(Exception, match=message) as caught:
        _train(tmp_path, *tiny_data, *options)
    cause = caught.value.__cause__ if "instantiation" in type(caught.value).__name__.lower() else caught.value
    assert isinstance(cause, UserError)
    assert "\n" not in str(cause)
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path, tiny_data: list[str]) -> None:
    _train(tmp_path / "a", *tiny_data)
    before = _weights(tmp_path / "a")
    with pytest.raises(UserError, match="was trained with other settings.*: type latent_dim=2$") as caught:
        _train(tmp_path / "b", *tiny_data, "latent_dim=3", f"ckpt_path={tmp_path / 'a'}")
    assert "\n" not in str(caught.value)
    assert _same(before, _weights(tmp_path / "a"))


def test_resuming_in_the_middle_of_an_epoch(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, "data.binarize=dynamic", "callbacks.last.every_n_train_steps=3", "data.limit=80"]
    _train(tmp_path / "whole", *options, "trainer.max_epochs=3")
    _train(tmp_path / "first", *options, "trainer.max_steps=8")
    checkpoint = torch.load(tmp_path / "first" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8  # the third of five steps of the second epoch
    _train(tmp_path / "second", *options, "trainer.max_epochs=3", f"ckpt_path={tmp_path / 'first'}")
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "second"))


@pytest.mark.parametrize("steps", [3, 6])
def test_a_training_that_ends_within_an_epoch_leaves_what_was_tested(
    steps: int, tmp_path: Path, tiny_data: list[str]
) -> None:
    options = [*tiny_data, "callbacks=none", "data.validation=test", "trainer.max_epochs=-1"]
    _train(tmp_path / "whole", *options, "trainer.max_steps=9")
    figures = _train(tmp_path / "first", *options, f"trainer.max_steps={steps}")
    checkpoint = torch.load(tmp_path / "first" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == figures["steps"] == steps
    _train(tmp_path / "second", *options, "trainer.max_steps=9", f"ckpt_path={tmp_path / 'first'}")
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "second"))


def test_an_epoch_of_fewer_batches_is_over_where_it_ends(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, "callbacks=none", "trainer.limit_train_batches=3"]
    whole = _train(tmp_path / "whole", *options, "trainer.max_epochs=4")
    _train(tmp_path / "first", *options, "trainer.max_epochs=2")
    second = _train(tmp_path / "second", *options, "trainer.max_epochs=4", f"ckpt_path={tmp_path / 'first'}")
    assert second["steps"] == whole["steps"] == 12
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "second"))


def test_time_is_counted_on(tmp_path: Path, tiny_data: list[str]) -> None:
    first = _train(tmp_path, *tiny_data)
    (tmp_path / "metrics.json").unlink()
    again = _train(tmp_path, *tiny_data, f"ckpt_path={tmp_path}")  # nothing is left but its test
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["_Stopwatch"]
    assert 0 < state["seconds"] < state["elapsed"] < min(first["seconds"], again["seconds"])
    assert again["images_per_second"] == pytest.approx(first["images_per_second"], rel=0.01)


def test_what_is_trained_for_longer_is_not_complete_until_it_is(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(tmp_path, *tiny_data)

    def die(self: VAEModule) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(VAEModule, "on_test_epoch_start", die)
        with pytest.raises(SystemExit):
            _train(tmp_path, *tiny_data, "trainer.max_epochs=3", f"ckpt_path={tmp_path}")
    assert not (tmp_path / "metrics.json").exists()
    assert _train(tmp_path, *tiny_data, "trainer.max_epochs=3", f"ckpt_path={tmp_path}")["epochs"] == 3


def test_a_job_that_is_queued_again_goes_on_from_its_own_folder(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its command line still names the run that it has begun with."""
    _train(tmp_path / "a", *tiny_data)
    line = [*tiny_data, f"ckpt_path={tmp_path / 'a'}"]
    _train(tmp_path / "b", *line, "trainer.max_epochs=3")
    with pytest.raises(UserError, match=r"b already holds a run: continue it with ckpt_path=.*/b "):
        _train(tmp_path / "b", *line, "trainer.max_epochs=4")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    (tmp_path / "b" / "checkpoints" / "last.ckpt").unlink()  # killed between the first best one and the first last one
    _train(tmp_path / "b", *line, "trainer.max_epochs=4")
    assert [row["epoch"] for row in _rows(tmp_path / "b") if row["val/elbo"]] == ["2", "3"]


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_run_folder_that_was_moved_has_its_best_epoch(is_kept: bool, tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, "callbacks=none", "monitor_mode=min"]  # upside down: the first epoch is the best
    whole = _train(tmp_path / "whole", *options, "trainer.max_epochs=4")
    _train(tmp_path / "first", *options)
    moved = (tmp_path / "first").rename(tmp_path / "moved")
    if not is_kept:
        (moved / "checkpoints" / "best.ckpt").unlink()
    figures = _train(moved, *options, "trainer.max_epochs=4", f"ckpt_path={moved}")
    assert (figures["test/elbo"] == whole["test/elbo"]) == is_kept
    best = torch.load(moved / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == (4 if is_kept else 12)


def test_half_of_an_accumulated_step_is_in_no_checkpoint(tmp_path: Path, tiny_data: list[str]) -> None:
    steps: list[tuple[int, int]] = []
    save = WholeFiles.save_checkpoint

    def note(self: WholeFiles, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"]
        steps.append((checkpoint["global_step"], batches))
        save(self, checkpoint, path, storage_options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WholeFiles, "save_checkpoint", note)
        options = ["callbacks.last.every_n_minutes=1e-6", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=1"]
        _train(tmp_path, *tiny_data, *options)
    assert steps
    assert all(batches == 2 * step for step, batches in steps)


def test_ruined_weights_do_not_take_the_place_of_good_ones(tmp_path: Path, tiny_data: list[str]) -> None:
    options = ["optimizer=sgd", "optimizer.lr=1e10", "callbacks.last.every_n_train_steps=1", "callbacks.gallery=null"]
    with pytest.raises(UserError, match="not finite"):
        _train(tmp_path, *tiny_data, *options, "trainer.max_epochs=20")
    for path in (tmp_path / "checkpoints").glob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize(
    ("options", "said"),
    [(["callbacks=early_stopping"], "callbacks=early_stopping"), (["scheduler=plateau"], "scheduler=plateau")],
)
def test_nothing_is_chosen_by_test_images(options: list[str], said: str, tmp_path: Path, tiny_data: list[str]) -> None:
    with pytest.raises(UserError, match=f"{said} goes by validation images"):
        _train(tmp_path, *tiny_data, *options, "data.validation=test")


def test_going_on_with_other_settings_is_refused(tmp_path: Path, tiny_data: list[str]) -> None:
    _train(tmp_path / "a", *tiny_data, "callbacks=none")
    for options, said in (
        (["optimizer.lr=0.1"], "type optimizer.lr=0.001"),
        (["data.limit=48"], "type data.limit=64"),
        (["seed=1"], "seed=0"),
        ([], "has been trained for 2 epochs already: type e.g. trainer.max_epochs=4"),
    ):
        longer = ["trainer.max_epochs=3"] if options else []
        with pytest.raises(UserError, match=said):
            _train(tmp_path / "b", *tiny_data, *options, *longer, f"ckpt_path={tmp_path / 'a'}")


def test_going_on_elsewhere_remembers_the_best_epoch(tmp_path: Path, tiny_data: list[str]) -> None:
    """What improves is turned upside down, so that the first epoch is the best."""
    options = [*tiny_data, "callbacks=none", "monitor_mode=min"]
    whole = _train(tmp_path / "whole", *options, "trainer.max_epochs=4")
    validated = [float(row["val/elbo"]) for row in _rows(tmp_path / "whole") if row["val/elbo"]]
    assert whole["val/elbo"] == pytest.approx(min(validated)) == pytest.approx(validated[0])
    _train(tmp_path / "first", *options)
    second = _train(tmp_path / "second", *options, "trainer.max_epochs=4", f"ckpt_path={tmp_path / 'first'}")
    assert second["val/elbo"] == whole["val/elbo"]
    assert second["test/elbo"] == whole["test/elbo"]
    assert (tmp_path / "second" / "checkpoints" / "best.ckpt").is_file()


def test_a_plateau_is_noticed_and_survives_going_on(tmp_path: Path, tiny_data: list[str]) -> None:
    """With a rate this small nothing improves by a hundred nats."""
    options = [*tiny_data, "callbacks=none", "scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=100"]
    options += ["optimizer.lr=1e-6", "trainer.log_every_n_steps=4"]
    _train(tmp_path / "whole", *options, "trainer.max_epochs=5")
    rates = [float(row["lr"]) for row in _rows(tmp_path / "whole") if row["lr"]]
    assert rates == pytest.approx([1e-6, 1e-6, 5e-7, 2.5e-7, 1.25e-7])
    _train(tmp_path / "broken", *options, "trainer.max_epochs=3")
    _train(tmp_path / "broken", *options, "trainer.max_epochs=5", f"ckpt_path={tmp_path / 'broken'}")
    assert [float(row["lr"]) for row in _rows(tmp_path / "broken") if row["lr"]] == rates


def test_plateau_counts_nats_and_not_fractions_of_a_negative_bound() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = plateau(optimizer, 0, factor=0.5, patience=0)["scheduler"]
    for elbo in (-100.0, -100.005, -100.005):
        scheduler.step(elbo)
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_a_training_that_ends_within_an_epoch_is_validated_there(tmp_path: Path, tiny_data: list[str]) -> None:
    options = ["trainer.max_epochs=-1", "trainer.max_steps=6", "data.validation=test", "callbacks=none"]
    figures = _train(tmp_path, *tiny_data, *options)
    assert figures["val/elbo"] == pytest.approx(figures["test/elbo"], rel=1e-6)
    assert [int(row["step"]) for row in _rows(tmp_path) if row["train/loss"]] == [3, 5]


def test_clipping_goes_with_mixed_precision(tmp_path: Path, tiny_data: list[str]) -> None:
    figures = _train(tmp_path, *tiny_data, "accelerator=cpu_bf16", "trainer.gradient_clip_val=1.0", "callbacks=none")
    assert figures["epochs"] == 2


def test_no_checkpoint_is_chosen_by_test_images(tmp_path: Path, tiny_data: list[str]) -> None:
    trained = _train(tmp_path, *tiny_data, "data.validation=test", "optimizer=sgd", "optimizer.lr=3e-3")
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert _tested(tmp_path)["test/elbo"] == trained["test/elbo"]


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, "optimizer=sgd", "trainer.log_every_n_steps=3"]
    with pytest.raises(UserError, match=r"in step [2-6] (is|are) not finite.*optimizer\.lr"):
        _train(tmp_path / "bad", *options, "optimizer.lr=1e30")
    assert not list((tmp_path / "bad").glob("checkpoints/*.ckpt"))  # there was no good state yet


def test_bad_steps_can_be_skipped(tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = ELBO.forward, []

    def failing_once(self: ELBO, vae: VAE, x: torch.Tensor, y: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        terms = forward(self, vae, x, y)
        calls.extend([1] if vae.training else [])
        return {**terms, "loss": terms["loss"] * (float("inf") if len(calls) == 3 and vae.training else 1)}

    monkeypatch.setattr(ELBO, "forward", failing_once)
    with pytest.raises(UserError, match=r"loss in step 3 is not finite"):
        _train(tmp_path / "stopped", *tiny_data)
    calls.clear()
    figures = _train(tmp_path / "skipped", *tiny_data, "module.bad_numbers=skip")
    assert figures["steps"] == 8
    assert all(value.isfinite().all() for value in _weights(tmp_path / "skipped").values())
    assert {row["train/skipped_steps"] for row in _rows(tmp_path / "skipped") if row["train/loss"]} == {"1"}


def test_what_dies_before_an_epochs_validation_does_it_again(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where a checkpoint is due at the epoch's last step, from which validation would be passed over."""
    options = [*tiny_data, "callbacks.last.every_n_train_steps=2", "trainer.max_epochs=3", "callbacks.gallery=null"]
    _train(tmp_path / "whole", *options)

    def die(self: VAEModule) -> None:
        if self.trainer.current_epoch == 1:
            raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(VAEModule, "on_validation_start", die)
        with pytest.raises(SystemExit):
            _train(tmp_path / "killed", *options)
    _train(tmp_path / "killed", *options, f"ckpt_path={tmp_path / 'killed'}")
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "killed"))
    assert (tmp_path / "whole" / "metrics.csv").read_text() == (tmp_path / "killed" / "metrics.csv").read_text()


@pytest.mark.parametrize("validation", ["10", "test"])
def test_what_dies_before_its_test_is_tested(tmp_path: Path, tiny_data: list[str], validation: str) -> None:
    options = [*tiny_data, f"data.validation={validation}", "callbacks.gallery=null"]
    figures = _train(tmp_path, *options)
    rows = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.json").unlink()
    again = _train(tmp_path, *options, f"ckpt_path={tmp_path}")
    for name, value in figures.items():
        if name not in ("seconds", "images_per_second"):
            assert again[name] == value, name
    assert (tmp_path / "metrics.csv").read_text() == rows
    with pytest.raises(UserError, match="2 epochs already"):
        _train(tmp_path, *options, f"ckpt_path={tmp_path}")


class _Ended(MLPDecoder):
    """A decoder that ends as those of most programs do."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(z).sigmoid()


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_decoder_that_ends_in_a_sigmoid_is_warned_of(
    is_ended: bool, tmp_path: Path, tiny_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    decoder = [f"module.vae.decoder._target_={__name__}.{_Ended.__name__}"] if is_ended else []
    _train(tmp_path, *tiny_data, *decoder, "callbacks=none", "trainer.max_epochs=1")
    assert ("as if it ended in a sigmoid" in caplog.text) == is_ended


def test_two_trainings_do_not_share_a_folder(tmp_path: Path, tiny_data: list[str]) -> None:
    with alone(tmp_path), pytest.raises(UserError, match="another training is writing into"):
        _train(tmp_path, *tiny_data, "callbacks=none")
    assert not (tmp_path / "config.yaml").exists()
    assert _train(tmp_path, *tiny_data, "callbacks=none")["epochs"] == 2


def test_a_folder_that_cannot_be_written(tmp_path: Path, tiny_data: list[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run cannot be written.*hydra\.run\.dir="):
        _train(tmp_path / "file" / "run", *tiny_data)


def test_a_full_disk_ends_a_training_in_one_line_and_leaves_its_checkpoint(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any) -> None:
        if (tmp_path / "checkpoints" / "last.ckpt").exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "metrics.csv"))

    monkeypatch.setattr(loggers, "_to_disk", full)
    with pytest.raises(OSError, match="No space left") as caught:
        _train(tmp_path, *tiny_data)
    line = explain(caught.value)
    assert line is not None
    assert line.startswith(f"No space left on device ({tmp_path}/metrics.csv): make room")
    monkeypatch.undo()
    assert _train(tmp_path, *tiny_data, f"ckpt_path={tmp_path}")["epochs"] == 2


def test_a_clock_that_goes_backwards_disturbs_nothing(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    ticks = itertools.count()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * next(ticks))
    figures = _train(tmp_path, *tiny_data)
    assert figures["epochs"] == 2
    assert 0 < figures["seconds"] < 600
    assert figures["images_per_second"] > 0
    assert len([row for row in _rows(tmp_path) if row["val/elbo"]]) == 2


def test_a_checkpoint_is_written_every_so_many_minutes(tmp_path: Path, tiny_data: list[str]) -> None:
    """Here after every step but the last, from which the epoch's end is written."""
    steps: list[int] = []
    save = WholeFiles.save_checkpoint

    def note(self: WholeFiles, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if Path(path).name == "last.ckpt":
            steps.append(checkpoint["global_step"])
        save(self, checkpoint, path, storage_options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WholeFiles, "save_checkpoint", note)
        options = ("callbacks.last.every_n_minutes=1e-6", "callbacks.pictures=null", "callbacks.gallery=null")
        _train(tmp_path, *tiny_data, *options)
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
