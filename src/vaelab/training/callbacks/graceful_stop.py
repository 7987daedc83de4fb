"""Ends a training on Ctrl-C, or on the signals of a cluster, with a checkpoint to resume from."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch

from vaelab.runtime import signals
from vaelab.runtime.signals import Stopped
from vaelab.training.lightning_workarounds import StepCheckpoint, is_last_step


class GracefulStop(L.Callback):
    """Ends a training after the current step, with a checkpoint from which it resumes at the next step.

    The signals are those of :data:`vaelab.runtime.signals.ENDING`. A second Ctrl-C ends the process at once.

    In a Slurm job, SIGUSR1 ends the training too, and the job is then queued again (:func:`signals.requeue`). The
    option ``--signal=SIGUSR1@90`` sends it before the time limit. In a job of submitit, its own signal does this.
    SIGTERM then only writes a checkpoint: Slurm announces a preemption with it, and submitit's signal follows.

    A signal during a validation waits for its end, because no checkpoint is written within it.

    Several processes end together, even if only one got the signal, because all of them write the checkpoint. They do
    so at a step at which metrics are logged, or at the beginning of an epoch.

    Args:
        path: of the checkpoint.

    Attributes:
        asked: the signal that asked for the end; 0 for none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = 0
        self._is_preemption_announced = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._before = signals.handle(self._ask, [*signals.ENDING, *signals.requeue_signals()])

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if signals.is_submitit():
            if signum == signal.SIGTERM:
                self._is_preemption_announced = True
            else:
                self.asked = signum
        elif signals.ask(signum):
            self.asked = signum

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        written = [
            c.saved_step for c in trainer.checkpoint_callbacks if isinstance(c, StepCheckpoint) and not c.monitor
        ]
        if trainer.global_step in written and self.agree(trainer):  # else the next step writes a checkpoint
            raise Stopped(self.asked)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch or is_last_step(trainer):
            return  # a validation comes next, and then a checkpoint
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # a checkpoint does not store gradients that are still being accumulated
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        if trainer.world_size > 1 and batch_idx and (batch_idx + 1) % every:
            return
        if self.agree(trainer):
            trainer.save_checkpoint(self.path)
            raise Stopped(self.asked)
        if self._is_preemption_announced and trainer.world_size == 1:
            trainer.save_checkpoint(self.path)
            self._is_preemption_announced = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:  # the pruning callback may have set it in the first process only
            trainer.should_stop = trainer.strategy.reduce_boolean_decision(trainer.should_stop, all=False)

    def agree(self, trainer: L.Trainer) -> bool:
        """Whether any process got a signal to end; all processes then have the signal."""
        if trainer.world_size > 1:
            asked = torch.tensor(float(self.asked), device=trainer.strategy.root_device)
            self.asked = int(trainer.strategy.reduce(asked, reduce_op="max"))
            signals.asked = signals.asked or self.asked
        return self.asked > 0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        signals.restore(self._before)
        self._before = {}
