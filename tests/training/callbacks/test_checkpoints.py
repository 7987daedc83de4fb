"""A checkpoint is whole or not there."""

import math
import re
from pathlib import Path

import lightning as L
import pytest
import torch

from tests.runtime.test_files import full_disk
from tests.trainings import trained
from vaelab.runtime.errors import UserError
from vaelab.training.callbacks.checkpoints import AtomicCheckpointIO


@pytest.mark.parametrize("name", ["last", "best"])
def test_what_cannot_be_written_leaves_the_one_before(name: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / f"{name}.ckpt"
    files = AtomicCheckpointIO()
    large = {"weights": torch.zeros(5000)}
    with (
        full_disk(),
        pytest.raises(UserError, match=r"written \(File too large\); there is no previous.*hydra\.run\.dir="),
    ):
        files.save_checkpoint(large, path)
    files.save_checkpoint({"step": 1}, path.with_name("last.ckpt"))
    resume = re.escape(f"resume with ckpt_path={path.with_name('last.ckpt')}")
    with full_disk(), pytest.raises(UserError, match=f"the previous checkpoint is intact: make room, and {resume}"):
        files.save_checkpoint(large, path)
    assert files.load_checkpoint(path.with_name("last.ckpt")) == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
    files.save_checkpoint({"step": 3}, path)
    assert files.load_checkpoint(path) == {"step": 3}


def test_an_error_of_what_is_saved_is_no_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"step": lambda: None}, tmp_path / "last.ckpt")


def test_an_epoch_without_a_finite_metric_is_never_the_best(tmp_path: Path, tiny_data: list[str]) -> None:
    class Nan(L.Callback):
        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch != 1:
                trainer.callback_metrics["val/elbo"].fill_(math.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vaelab.commands.train.FinalValidation", Nan)
        trained(tmp_path, *tiny_data, "callbacks=none", "trainer.max_epochs=3", "report=false")
    best, last = (torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["global_step"], last["global_step"]) == (8, 12)


def test_nothing_but_plain_values_is_read(tmp_path: Path) -> None:
    torch.save({"path": Path("anything")}, tmp_path / "foreign.ckpt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "foreign.ckpt")
