"""Ends a training on Ctrl-C, or on the signals of a cluster, with a checkpoint to resume from."""

import os
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch


class Stopped(BaseException):
    """A signal, ``signum``, has ended the training."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class GracefulStop(L.Callback):
    """Ends a training after the current step, with a checkpoint from which it resumes at the next step.

    Ctrl-C and SIGTERM end the training. A second Ctrl-C ends the process at once.

    In a Slurm job, SIGUSR1 ends the training too, and the job is then queued again, see :func:`requeue`. The option
    ``--signal=SIGUSR1@90`` sends it before the time limit. In a job of submitit, submitit's own signal does this.
    SIGTERM then only writes a checkpoint: Slurm announces a preemption with it, and submitit's signal follows.

    Several processes end together, even if only one got the signal, because all of them write the checkpoint. They do
    so at a step at which metrics are logged, or at the first step of an epoch.

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
        signals = [signal.SIGINT, signal.SIGTERM, *requeue_signals()]
        try:  # these replace Lightning's handlers, which write no checkpoint, or one within a step
            self._before = {signum: signal.signal(signum, self._ask) for signum in signals}
        except ValueError:  # only the main thread can set handlers
            self._before = {}

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if _is_submitit() and signum == signal.SIGTERM:
            self._is_preemption_announced = True
            return
        if self.asked == signum == signal.SIGINT and not _is_submitit():  # submitit repeats signals itself
            os._exit(128 + signum)
        self.asked = signum

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            return  # the end of the epoch validates and writes checkpoints; the next step comes soon
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
        return self.asked > 0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}


def _is_submitit() -> bool:
    return "SUBMITIT_EXECUTOR" in os.environ


def requeue_signals() -> list[signal.Signals]:
    """The signal at which this job ends and is queued again; empty outside a cluster.

    In a job of submitit only its own signal counts, because its handler queues the job.
    """
    if _is_submitit():
        return [signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]]
    return [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []


def requeue(signum: int) -> str | None:
    """Queues this job again.

    Args:
        signum: the signal that asked for it.

    Returns:
        The reason for a failure; ``None`` if it worked.

    Raises:
        SystemExit: in a job of submitit, whose handler ends the process.
    """
    if _is_submitit():
        handler: Any = signal.getsignal(signum)
        try:
            handler(signum, None)
        except Exception as error:  # submitit refuses, e.g. because the job was queued too often
            return str(error).strip(".")
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    except OSError as error:
        return f"scontrol: {error.strerror}"
    return None if done.returncode == 0 else f"scontrol requeue {job}: {done.stderr.strip() or done.returncode}"


def was_requeued() -> bool:
    """Whether Slurm or torchrun has started this job before."""
    return any(int(os.environ.get(f"{name}_RESTART_COUNT") or 0) > 0 for name in ("SLURM", "TORCHELASTIC"))
