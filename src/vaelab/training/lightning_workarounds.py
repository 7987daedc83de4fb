"""Every reach of this project into private parts of Lightning, each with its reason.

``tests/training/test_lightning_workarounds.py`` fails if one of these parts has changed, or is no longer needed.
"""

from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import _DummyExperiment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger


class QuickAttributes(L.LightningModule):
    """A LightningModule whose attribute ``_current_fx_name`` is set without a search for parameters.

    Lightning sets it some forty times in a step, and ``nn.Module.__setattr__`` looks for parameters each time.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


def without_signal_handlers(trainer: L.Trainer) -> None:
    """Keeps Lightning from setting handlers of signals.

    Its handler of SIGTERM only notes the signal. In a test nothing looks at that note, and with several processes the
    handler waits for the others. In a Slurm job its handlers write checkpoints within a step and queue the job again.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def validate(trainer: L.Trainer) -> None:
    """Runs the validation loop within a training, as Lightning's own loop over batches does it.

    Lightning validates at the end of an epoch only where its settings say so. It has no public call for a validation
    within :meth:`lightning.Trainer.fit`; ``trainer.validate`` would end the training.
    """
    connector = trainer._logger_connector
    first_loop_iter = connector._first_loop_iter
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
    connector._first_loop_iter = first_loop_iter


def validate_at_epoch_end(trainer: L.Trainer) -> None:
    """As :func:`validate`, from a callback of an epoch's end.

    Lightning has counted a step more by then. Its loggers number validation metrics by that counter.
    """
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped -= 1
    validate(trainer)
    loop._batches_that_stepped += 1


def batches_trained(trainer: L.Trainer) -> int:
    """Training batches since the training began, over all epochs."""
    return int(trainer.fit_loop.epoch_loop.total_batch_idx + 1)


def current_batch(trainer: L.Trainer) -> int:
    """The number of the current batch within its epoch, from 0."""
    return int(trainer.fit_loop.epoch_loop.batch_idx)


def is_last_step(trainer: L.Trainer) -> bool:
    """Whether the loop over batches ends after this step, by ``trainer.max_steps`` for example."""
    return bool(trainer.fit_loop.epoch_loop.done)


class StepCheckpoint(ModelCheckpoint):
    """What :class:`ModelCheckpoint` knows of its last checkpoint, and of when it writes within an epoch."""

    @property
    def saved_step(self) -> int:
        """The step of the last checkpoint."""
        return int(self._last_global_step_saved)

    @saved_step.setter
    def saved_step(self, step: int) -> None:
        self._last_global_step_saved = step

    @property
    def writes_within_epochs(self) -> bool:
        """Whether checkpoints are written every so many steps or minutes."""
        return bool(self._every_n_train_steps or self._train_time_interval is not None)


def dummy_experiment() -> Any:
    """An object that accepts any call of a logger and does nothing, for a logger that has failed."""
    return _DummyExperiment()


def without_option(logger: WandbLogger, name: str) -> None:
    """Takes an option away that Lightning passes to ``wandb.init`` though W&B warns about it, even if it is not set."""
    logger._wandb_init.pop(name, None)
