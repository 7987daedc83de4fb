"""The private parts of Lightning that are used are what they were, and are still needed."""

import inspect
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch.utils.data import DataLoader, TensorDataset

from tests.trainings import rows, trained
from vaelab.training import lightning_workarounds


class _Plain(L.LightningModule):
    """Counts how often Lightning sets the attribute in one training step."""

    times = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            _Plain.times += 1
        super().__setattr__(name, value)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.layer(batch[0]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_lightning_sets_the_name_of_its_hook_again_and_again(tmp_path: Path) -> None:
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = L.Trainer(max_steps=10, enable_model_summary=False, default_root_dir=tmp_path, **options)  # type: ignore[arg-type]
    trainer.fit(_Plain(), DataLoader(TensorDataset(torch.ones(20, 1))))
    assert _Plain.times > 100  # in ten steps; if it is few, QuickAttributes can go


def test_the_attribute_is_set_without_a_search_for_parameters() -> None:
    module = lightning_workarounds.QuickAttributes()
    module._current_fx_name = "training_step"
    assert module.__dict__["_current_fx_name"] == "training_step"
    module.layer = torch.nn.Linear(1, 1)
    assert [name for name, _ in module.named_parameters()] == ["layer.weight", "layer.bias"]


def test_lightning_sets_handlers_of_signals_unless_it_is_kept_from_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    trainer = L.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    try:
        trainer._signal_connector.register_signal_handlers()
        assert signal.getsignal(signal.SIGTERM) is not before  # if it is, without_signal_handlers can go
    finally:
        trainer._signal_connector.teardown()
    lightning_workarounds.without_signal_handlers(trainer)
    trainer._signal_connector.register_signal_handlers()
    assert signal.getsignal(signal.SIGTERM) is before
    trainer._signal_connector.teardown()
    assert signal.getsignal(signal.SIGTERM) is before


def test_lightning_validates_within_a_training_as_it_is_done_here() -> None:
    source = inspect.getsource(_TrainingEpochLoop.on_advance_end)
    for line in (
        "first_loop_iter = self.trainer._logger_connector._first_loop_iter",
        "self.trainer.validating = True",
        "self.val_loop.run()",
        "self.trainer.training = True",
        "self.trainer._logger_connector._first_loop_iter = first_loop_iter",
    ):
        assert line in source
    assert "_batches_that_stepped += 1" in inspect.getsource(_TrainingEpochLoop)


def test_the_loop_counts_batches_by_these_names(tmp_path: Path, tiny_data: list[str]) -> None:
    seen: list[tuple[int, int, bool]] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
            counts = lightning_workarounds.batches_trained(trainer), lightning_workarounds.current_batch(trainer)
            seen.append((*counts, lightning_workarounds.is_last_step(trainer)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vaelab.commands.train.FinalValidation", Watch)
        trained(tmp_path, *tiny_data, "callbacks=none", "data.validation=16", "trainer.max_steps=5", "report=false")
    assert [count for count, *_ in seen] == [1, 2, 3, 4, 5]
    assert [batch for _, batch, _ in seen] == [0, 1, 2, 3, 0]
    assert [last for *_, last in seen] == [False, False, False, True, True]  # of an epoch, or of all


def test_a_validation_at_the_end_is_logged_at_the_last_step(tmp_path: Path, tiny_data: list[str]) -> None:
    trained(tmp_path, *tiny_data, "callbacks=none", "data.validation=16", "trainer.max_steps=5", "report=false")
    steps = [int(row["step"]) for row in rows(tmp_path) if row["val/elbo"]]
    assert steps == [3, 4]


def test_a_checkpoint_remembers_its_step_by_these_names() -> None:
    attributes = vars(ModelCheckpoint())
    assert {"_last_global_step_saved", "_every_n_train_steps", "_train_time_interval"} <= set(attributes)
    assert not lightning_workarounds.StepCheckpoint(every_n_epochs=1).writes_within_epochs
    each = lightning_workarounds.StepCheckpoint(every_n_train_steps=3)
    assert each.writes_within_epochs
    each.saved_step = 7
    assert each.saved_step == each._last_global_step_saved == 7


def test_lightning_passes_an_option_to_wandb_that_is_not_set(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    assert "anonymous" in logger._wandb_init  # if not, without_option can go
    lightning_workarounds.without_option(logger, "anonymous")
    assert "anonymous" not in logger._wandb_init


def test_the_dummy_accepts_any_call() -> None:
    lightning_workarounds.dummy_experiment().log({"a": 1}, step=3)
