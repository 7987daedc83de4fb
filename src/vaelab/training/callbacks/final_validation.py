"""The validation of the weights that a training ends with."""

from typing import Any

import lightning as L

from vaelab.training import lightning_workarounds


class FinalValidation(L.Callback):
    """Validates what a training ends with where Lightning does not: within an epoch, or in one that it leaves out.

    It does so before the checkpoints are written, so that the best one is chosen among all that was validated.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch and trainer.global_step == trainer.max_steps and _is_due(trainer, pl_module):
            lightning_workarounds.validate(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        if is_last or trainer.global_step == trainer.max_steps or trainer.should_stop:
            if _is_due(trainer, pl_module):
                lightning_workarounds.validate_at_epoch_end(trainer)


def _is_due(trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
    return trainer.enable_validation and pl_module.validated_at != trainer.global_step
