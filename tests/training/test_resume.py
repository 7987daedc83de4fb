"""Trainings that stop, in any way, and go on."""

import errno
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch

from tests.trainings import rows, same, trained, weights
from vaelab.commands.error_messages import explain
from vaelab.runs import provenance
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.errors import UserError
from vaelab.training import loggers
from vaelab.training.callbacks.checkpoints import AtomicCheckpointIO
from vaelab.training.lightning_module import VAEModule
from vaelab.training.resume import Resumption, locked
from vaelab.visualization.report import run_page


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_resuming_is_as_if_it_had_never_stopped(tmp_path: Path, tiny_data: list[str], binarize: str) -> None:
    options = [*tiny_data, f"data.binarize={binarize}"]
    whole = trained(tmp_path / "whole", *options, "trainer.max_epochs=4")
    trained(tmp_path / "first", *options)
    resumed = trained(tmp_path / "second", *options, "trainer.max_epochs=4", f"ckpt_path={tmp_path / 'first'}")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "second"))
    assert resumed["epochs"] == 4
    assert resumed["val/elbo"] == whole["val/elbo"]
    assert resumed["unit"] == ("not nats" if binarize == "none" else "nats")


def test_a_warm_up_goes_on_where_it_was(tmp_path: Path, tiny_data: list[str]) -> None:
    """16 steps, of which the warm-up takes 12; the training stops after 8 of them."""
    options = [*tiny_data, "objective=beta", "module.objective.warmup.steps=12", "callbacks=none", "logger=csv"]
    whole = trained(tmp_path / "whole", *options, "trainer.max_epochs=4")
    trained(tmp_path / "first", *options)
    resumed = trained(tmp_path / "second", *options, "trainer.max_epochs=4", f"ckpt_path={tmp_path / 'first'}")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "second"))
    assert resumed["val/loss"] == whole["val/loss"]


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path, tiny_data: list[str]) -> None:
    trained(tmp_path / "a", *tiny_data)
    before = weights(tmp_path / "a")
    with pytest.raises(UserError, match="was trained with other settings.*: type latent_dim=2$") as caught:
        trained(tmp_path / "b", *tiny_data, "latent_dim=3", f"ckpt_path={tmp_path / 'a'}")
    assert "\n" not in str(caught.value)
    assert same(before, weights(tmp_path / "a"))


def test_resuming_in_the_middle_of_an_epoch(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, "data.binarize=dynamic", "callbacks.last.every_n_train_steps=3", "data.limit=80"]
    trained(tmp_path / "whole", *options, "trainer.max_epochs=3")
    trained(tmp_path / "first", *options, "trainer.max_steps=8")
    checkpoint = torch.load(tmp_path / "first" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8  # the third of five steps of the second epoch
    trained(tmp_path / "second", *options, "trainer.max_epochs=3", f"ckpt_path={tmp_path / 'first'}")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "second"))


@pytest.mark.parametrize("steps", [3, 6])
def test_a_training_that_ends_within_an_epoch_leaves_what_was_tested(
    steps: int, tmp_path: Path, tiny_data: list[str]
) -> None:
    options = [*tiny_data, "callbacks=none", "data.validation=test", "trainer.max_epochs=-1"]
    trained(tmp_path / "whole", *options, "trainer.max_steps=9")
    figures = trained(tmp_path / "first", *options, f"trainer.max_steps={steps}")
    checkpoint = torch.load(tmp_path / "first" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == figures["steps"] == steps
    trained(tmp_path / "second", *options, "trainer.max_steps=9", f"ckpt_path={tmp_path / 'first'}")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "second"))


def test_an_epoch_of_fewer_batches_is_over_where_it_ends(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, "callbacks=none", "trainer.limit_train_batches=3"]
    whole = trained(tmp_path / "whole", *options, "trainer.max_epochs=4")
    trained(tmp_path / "first", *options, "trainer.max_epochs=2")
    second = trained(tmp_path / "second", *options, "trainer.max_epochs=4", f"ckpt_path={tmp_path / 'first'}")
    assert second["steps"] == whole["steps"] == 12
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "second"))


def test_curves_begin_where_the_training_did(tmp_path: Path, tiny_data: list[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    trained(first, *tiny_data)
    trained(second, *tiny_data, "trainer.max_epochs=4", f"ckpt_path={first}")  # in a folder of its own
    trained(first, *tiny_data, "trainer.max_epochs=4", f"ckpt_path={first}")
    steps, own = ([int(row["step"]) for row in rows(folder) if row["val/elbo"]] for folder in (second, first))
    assert steps == own
    assert len(steps) == 4


def test_time_is_counted_on(tmp_path: Path, tiny_data: list[str]) -> None:
    began = time.perf_counter()
    first = trained(tmp_path, *tiny_data)
    taken = time.perf_counter() - began
    (tmp_path / "metrics.json").unlink()
    again = trained(tmp_path, *tiny_data, f"ckpt_path={tmp_path}")  # nothing is left but its test
    assert first["seconds"] < taken
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Stopwatch"]
    assert 0 < state["seconds"] < state["elapsed"] < min(first["seconds"], again["seconds"])
    assert again["images_per_second"] == pytest.approx(first["images_per_second"], rel=0.01)


def test_what_is_trained_for_longer_is_not_complete_until_it_is(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path, *tiny_data)

    def die(self: VAEModule) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(VAEModule, "on_test_epoch_start", die)
        with pytest.raises(SystemExit):
            trained(tmp_path, *tiny_data, "trainer.max_epochs=3", f"ckpt_path={tmp_path}")
    assert not (tmp_path / "metrics.json").exists()
    assert trained(tmp_path, *tiny_data, "trainer.max_epochs=3", f"ckpt_path={tmp_path}")["epochs"] == 3


def test_a_job_that_is_queued_again_goes_on_from_its_own_folder(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its command line still names the run that it has begun with."""
    trained(tmp_path / "a", *tiny_data)
    line = [*tiny_data, f"ckpt_path={tmp_path / 'a'}"]
    trained(tmp_path / "b", *line, "trainer.max_epochs=3")
    with pytest.raises(UserError, match=r"b already holds a run: resume it with ckpt_path=.*/b "):
        trained(tmp_path / "b", *line, "trainer.max_epochs=4")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    third = next(row["val/elbo"] for row in rows(tmp_path / "b") if row["epoch"] == "2" and row["val/elbo"])
    logged = (tmp_path / "b" / "metrics.csv").read_text()
    (tmp_path / "b" / "metrics.csv").write_text(logged.replace(third, "-7.0"))  # which is not logged again
    (tmp_path / "b" / "checkpoints" / "last.ckpt").unlink()  # killed between the first best one and the first last one
    trained(tmp_path / "b", *line, "trainer.max_epochs=4")
    validated = {row["epoch"]: row["val/elbo"] for row in rows(tmp_path / "b") if row["val/elbo"]}
    assert list(validated) == ["0", "1", "2", "3"]
    assert validated["2"] == "-7.0"


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_run_folder_that_was_moved_has_its_best_epoch(is_kept: bool, tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, "callbacks=none", "monitor=val/kl", "monitor_mode=min"]  # the first epoch is the best
    whole = trained(tmp_path / "whole", *options, "trainer.max_epochs=4")
    trained(tmp_path / "first", *options)
    moved = (tmp_path / "first").rename(tmp_path / "moved")
    if not is_kept:
        (moved / "checkpoints" / "best.ckpt").unlink()
    figures = trained(moved, *options, "trainer.max_epochs=4", f"ckpt_path={moved}")
    assert (figures["test/elbo"] == whole["test/elbo"]) == is_kept
    best = torch.load(moved / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == (4 if is_kept else 12)


def test_half_of_an_accumulated_step_is_in_no_checkpoint(tmp_path: Path, tiny_data: list[str]) -> None:
    steps: list[tuple[int, int]] = []
    save = AtomicCheckpointIO.save_checkpoint

    def note(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"]
        steps.append((checkpoint["global_step"], batches))
        save(self, checkpoint, path, storage_options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", note)
        options = ["callbacks.last.every_n_minutes=1e-6", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=1"]
        trained(tmp_path, *tiny_data, *options)
    assert steps
    assert all(batches == 2 * step for step, batches in steps)


def test_ruined_weights_do_not_take_the_place_of_good_ones(tmp_path: Path, tiny_data: list[str]) -> None:
    options = ["optimizer=sgd", "optimizer.lr=1e10", "callbacks.last.every_n_train_steps=1", "callbacks.gallery=null"]
    with pytest.raises(UserError, match="not finite"):
        trained(tmp_path, *tiny_data, *options, "trainer.max_epochs=20")
    for path in (tmp_path / "checkpoints").glob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values())


def test_going_on_with_other_settings_is_refused(tmp_path: Path, tiny_data: list[str]) -> None:
    trained(tmp_path / "a", *tiny_data, "callbacks=none")
    for options, said in (
        (["optimizer.lr=0.1"], "type optimizer.lr=0.001"),
        (["data.limit=48"], "type data.limit=64"),
        (["seed=1"], "seed=0"),
        (["conditional=true"], "type conditional=false$"),
        (
            ["+optimizer.maximize=true"],
            "was trained without optimizer.maximize and can be resumed only so: leave that out$",
        ),
        (["~data.drop_last"], r"type \+data.drop_last=false$"),
        ([], "has been trained for 2 epochs already: type e.g. trainer.max_epochs=4"),
    ):
        longer = ["trainer.max_epochs=3"] if options else []
        with pytest.raises(UserError, match=said):
            trained(tmp_path / "b", *tiny_data, *options, *longer, f"ckpt_path={tmp_path / 'a'}")


def test_all_that_was_chosen_otherwise_is_named_at_once(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "choices", lambda: {"loss": "bce", "prior": "standard_normal", "optimizer": "adam"})
    trained(tmp_path / "a", *tiny_data, "callbacks=none")
    monkeypatch.setattr(provenance, "choices", lambda: {"loss": "mse", "prior": "standard_normal", "optimizer": "sgd"})
    other = ["loss=mse", "optimizer=sgd", "latent_dim=3"]
    with pytest.raises(UserError, match="type loss=bce optimizer=adam latent_dim=2$"):
        trained(tmp_path / "b", *tiny_data, *other, "trainer.max_epochs=3", f"ckpt_path={tmp_path / 'a'}")


def test_going_on_elsewhere_remembers_the_best_epoch(tmp_path: Path, tiny_data: list[str]) -> None:
    """What improves is turned upside down, so that the first epoch is the best."""
    options = [*tiny_data, "callbacks=none", "monitor=val/kl", "monitor_mode=min"]
    whole = trained(tmp_path / "whole", *options, "trainer.max_epochs=4")
    validated = [float(row["val/elbo"]) for row in rows(tmp_path / "whole") if row["val/elbo"]]
    assert whole["val/elbo"] == pytest.approx(min(validated)) == pytest.approx(validated[0])
    trained(tmp_path / "first", *options)
    second = trained(tmp_path / "second", *options, "trainer.max_epochs=4", f"ckpt_path={tmp_path / 'first'}")
    assert second["val/elbo"] == whole["val/elbo"]
    assert second["test/elbo"] == whole["test/elbo"]
    assert (tmp_path / "second" / "checkpoints" / "best.ckpt").is_file()


def test_a_plateau_is_noticed_and_survives_going_on(tmp_path: Path, tiny_data: list[str]) -> None:
    """With a rate this small nothing improves by a hundred nats."""
    options = [*tiny_data, "callbacks=none", "scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=100"]
    options += ["optimizer.lr=1e-6", "trainer.log_every_n_steps=4"]
    trained(tmp_path / "whole", *options, "trainer.max_epochs=5")
    rates = [float(row["lr"]) for row in rows(tmp_path / "whole") if row["lr"]]
    assert rates == pytest.approx([1e-6, 1e-6, 5e-7, 2.5e-7, 1.25e-7])
    trained(tmp_path / "broken", *options, "trainer.max_epochs=3")
    trained(tmp_path / "broken", *options, "trainer.max_epochs=5", f"ckpt_path={tmp_path / 'broken'}")
    assert [float(row["lr"]) for row in rows(tmp_path / "broken") if row["lr"]] == rates


def test_what_dies_before_an_epochs_validation_does_it_again(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where a checkpoint is due at the epoch's last step, from which validation would be passed over."""
    options = [*tiny_data, "callbacks.last.every_n_train_steps=2", "trainer.max_epochs=3", "callbacks.gallery=null"]
    trained(tmp_path / "whole", *options)

    def die(self: VAEModule) -> None:
        if self.trainer.current_epoch == 1:
            raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(VAEModule, "on_validation_start", die)
        with pytest.raises(SystemExit):
            trained(tmp_path / "killed", *options)
    trained(tmp_path / "killed", *options, f"ckpt_path={tmp_path / 'killed'}")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert (tmp_path / "whole" / "metrics.csv").read_text() == (tmp_path / "killed" / "metrics.csv").read_text()


@pytest.mark.parametrize("validation", ["10", "test"])
def test_what_dies_before_its_test_is_tested(tmp_path: Path, tiny_data: list[str], validation: str) -> None:
    options = [*tiny_data, f"data.validation={validation}", "callbacks.gallery=null"]
    figures = trained(tmp_path, *options)
    rows = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.json").unlink()
    again = trained(tmp_path, *options, f"ckpt_path={tmp_path}")
    for name, value in figures.items():
        if name not in ("seconds", "images_per_second"):
            assert again[name] == value, name
    assert (tmp_path / "metrics.csv").read_text() == rows
    with pytest.raises(UserError, match="2 epochs already"):
        trained(tmp_path, *options, f"ckpt_path={tmp_path}")


@pytest.mark.parametrize("validation", ["10", "test"])
def test_what_dies_before_its_test_is_tested_in_another_folder(
    tmp_path: Path, tiny_data: list[str], validation: str
) -> None:
    options = [*tiny_data, f"data.validation={validation}", "callbacks.gallery=null"]
    figures = trained(tmp_path / "a", *options)
    (tmp_path / "a" / "metrics.json").unlink()
    again = trained(tmp_path / "b", *options, f"ckpt_path={tmp_path / 'a' / 'checkpoints' / 'last.ckpt'}")
    timed = ("seconds", "images_per_second")
    assert {**again, **dict.fromkeys(timed)} == {**figures, **dict.fromkeys(timed)}
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert (tmp_path / "a" / "metrics.csv").read_text() == (tmp_path / "b" / "metrics.csv").read_text()
    files = [{str(file.relative_to(tmp_path / name)) for file in (tmp_path / name).rglob("*.*")} for name in "ab"]
    assert files[0] | {"metrics.json"} == files[1]
    with pytest.raises(UserError, match=r"for 2 epochs already: type e\.g\. trainer\.max_epochs=4"):
        trained(tmp_path / "c", *options, f"ckpt_path={tmp_path / 'a'}", "trainer.max_epochs=1")


def test_a_run_is_complete_when_its_report_is_written(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path, metrics: Any = None) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(run_page, "page", die)
        with pytest.raises(SystemExit):
            trained(tmp_path, *tiny_data, "callbacks=none")
    assert not (tmp_path / "metrics.json").exists()
    figures = trained(tmp_path, *tiny_data, "callbacks=none", f"ckpt_path={tmp_path}")
    assert (tmp_path / "report.html").is_file()
    assert f"{figures['test/elbo']:.2f}"[:6] in (tmp_path / "report.html").read_text()


def test_early_stopping_has_the_patience_that_is_typed(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, "callbacks=early_stopping", "optimizer.lr=0", "optimizer=sgd", "trainer.max_epochs=9"]
    options += ["callbacks.gallery=null", "callbacks.pictures=null", "report=false"]
    patience = "callbacks.early_stopping.patience"
    a, b = tmp_path / "a", tmp_path / "b"
    assert trained(a, *options, f"{patience}=1")["epochs"] == 2
    with pytest.raises(UserError, match=rf"has stopped early after 2 epochs: type a larger {patience}$"):
        trained(b, *options, f"{patience}=1", f"ckpt_path={a}")
    assert trained(b, *options, f"{patience}=4", f"ckpt_path={a}")["epochs"] == 5
    (a / "metrics.json").unlink()
    assert trained(a, *options, f"{patience}=1", f"ckpt_path={a}")["epochs"] == 2  # only its test was left


def test_every_state_of_a_callback_leaves_its_settings_alone(tmp_path: Path) -> None:
    """Whatever a callback stores under the name of one of its settings."""

    class Counts(L.Callback):
        def __init__(self, limit: int) -> None:
            self.limit = limit

    callback = Counts(5)
    trainer: Any = SimpleNamespace(callbacks=[callback])
    contents = {"callbacks": {callback.state_key: {"limit": 3, "count": 2}}}
    Resumption(False).on_load_checkpoint(trainer, L.LightningModule(), contents)
    assert contents["callbacks"][callback.state_key] == {"limit": 5, "count": 2}


def test_a_device_s_kernels_are_not_those_of_the_checkpoint(tmp_path: Path, tiny_data: list[str]) -> None:
    """Gradients are not clipped in mixed precision with a fused optimiser, which the first training has."""
    options = [*tiny_data, "accelerator=cpu_bf16", "callbacks=none", "report=false"]
    trained(tmp_path / "a", *options)
    clipped = ["trainer.gradient_clip_val=1", "trainer.max_epochs=3", f"ckpt_path={tmp_path / 'a'}"]
    trained(tmp_path / "b", *options, *clipped)
    groups = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]
        for name in "ab"
    ]
    assert [group["param_groups"][0]["fused"] for group in groups] == [True, False]


def test_another_metric_to_choose_by_is_warned_of(
    tmp_path: Path, tiny_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    options = [*tiny_data, "callbacks=none", "report=false"]
    trained(tmp_path / "a", *options)
    assert "no best epoch" not in caplog.text
    other = ["monitor=val/kl", "monitor_mode=min", "trainer.max_epochs=3", f"ckpt_path={tmp_path / 'a'}"]
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        trained(tmp_path / "b", *options, *other)
    assert "no best epoch by monitor=val/kl and mode=min" in caplog.text


def test_two_trainings_do_not_share_a_folder(tmp_path: Path, tiny_data: list[str]) -> None:
    with locked(RunFolder(tmp_path)), pytest.raises(UserError, match="another training is writing into"):
        trained(tmp_path, *tiny_data, "callbacks=none")
    assert not (tmp_path / "config.yaml").exists()
    assert trained(tmp_path, *tiny_data, "callbacks=none")["epochs"] == 2


def test_a_folder_that_cannot_be_written(tmp_path: Path, tiny_data: list[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run cannot be written.*hydra\.run\.dir="):
        trained(tmp_path / "file" / "run", *tiny_data)


def test_a_full_disk_ends_a_training_in_one_line_and_leaves_its_checkpoint(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any) -> None:
        if (tmp_path / "checkpoints" / "last.ckpt").exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "metrics.csv"))

    monkeypatch.setattr(loggers, "_to_disk", full)
    with pytest.raises(OSError, match="No space left") as caught:
        trained(tmp_path, *tiny_data)
    line = explain(caught.value)
    assert line is not None
    assert line.startswith(f"No space left on device ({tmp_path}/metrics.csv): make room")
    monkeypatch.undo()
    assert trained(tmp_path, *tiny_data, f"ckpt_path={tmp_path}")["epochs"] == 2


def test_a_checkpoint_is_written_every_so_many_minutes(tmp_path: Path, tiny_data: list[str]) -> None:
    """Here after every step but the last, from which the epoch's end is written."""
    steps: list[int] = []
    save = AtomicCheckpointIO.save_checkpoint

    def note(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if Path(path).name == "last.ckpt":
            steps.append(checkpoint["global_step"])
        save(self, checkpoint, path, storage_options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", note)
        options = ("callbacks.last.every_n_minutes=1e-6", "callbacks.pictures=null", "callbacks.gallery=null")
        trained(tmp_path, *tiny_data, *options)
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
