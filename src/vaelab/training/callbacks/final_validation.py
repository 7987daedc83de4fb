"""The validation of the weights that a training ends with."""

from typing import Any

import lightning as L


class FinalValidation(L.Callback):
    """Validates what a training ends with where Lightning does not: within an epoch, or in one that it leaves out.

    It does so before the checkpoints are written, so that the best one is chosen among all that was validated.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch and trainer.global_step == trainer.max_steps:
            _validate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        if is_last or trainer.global_step == trainer.max_steps or trainer.should_stop:
            loop = trainer.fit_loop.epoch_loop
            loop._batches_that_stepped -= 1  # as Lightning counts for figures of an epoch's end
            _validate(trainer, pl_module)
            loop._batches_that_stepped += 1


def _validate(trainer: L.Trainer, pl_module: L.LightningModule) -> None:
    """As Lightning's own loop over batches does it, if it has not."""
    if pl_module.validated_at == trainer.global_step or not trainer.enable_validation:
        return
    connector = trainer._logger_connector
    first_loop_iter = connector._first_loop_iter
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
    connector._first_loop_iter = first_loop_iter
