"""The validation of the final weights."""

from typing import Any

import lightning as L

from vaelab.training import lightning_workarounds


class FinalValidation(L.Callback):
    """Validates the final weights if the training ends between two validations.

    It does so before the checkpoints are written, so that the best checkpoint is chosen among all validated weights.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch and trainer.global_step == trainer.max_steps and _is_due(trainer, pl_module):
            lightning_workarounds.validate(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        ends = is_last or trainer.global_step == trainer.max_steps or trainer.should_stop
        if ends and _is_due(trainer, pl_module):
            lightning_workarounds.validate_at_epoch_end(trainer)


def _is_due(trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
    return bool(trainer.enable_validation and pl_module.validated_at != trainer.global_step)
