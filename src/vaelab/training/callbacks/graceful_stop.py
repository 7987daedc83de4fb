"""What ends a training from outside: Ctrl-C, and the signals by which a machine asks a process to go."""

import os
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch


class Stopped(BaseException):
    """The training was asked to end, and has: ``signum`` says by which signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class GracefulStop(L.Callback):
    """Ends a training after the step that is being taken, with a checkpoint from which it goes on with the next one.

    A second Ctrl-C ends the process at once. In a Slurm job SIGUSR1, which ``--signal=SIGUSR1@90`` sends before the
    time is up, does so too, and is the sign to have the job queued again, see :func:`requeue`; in a job of submitit's
    it is submitit's own signal. There, SIGTERM has a checkpoint written and no more: Slurm announces a preemption with
    it, which submitit's signal follows. Several processes end together, whichever was asked, because all of them write
    the checkpoint: at a step at which figures are logged, or the first of an epoch.

    Args:
        path: the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = 0  # by which signal
        self.announced = False  # that it may be
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        signals = [signal.SIGINT, signal.SIGTERM, *requeue_signals()]
        try:  # after Lightning's own, which end a training without a checkpoint, or with one amid a step
            self._before = {signum: signal.signal(signum, self._ask) for signum in signals}
        except ValueError:  # not the main thread, which alone may
            self._before = {}

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if _is_submitit() and signum == signal.SIGTERM:
            self.announced = True
            return
        if self.asked == signum == signal.SIGINT and not _is_submitit():  # which repeats it by itself
            os._exit(128 + signum)
        self.asked = signum

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            return  # the epoch's end has validation and checkpoints of its own; the next step is soon
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # half of the gradients that make up a step are in no checkpoint
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        if trainer.world_size > 1 and batch_idx and (batch_idx + 1) % every:
            return
        if self.agree(trainer):
            trainer.save_checkpoint(self.path)
            raise Stopped(self.asked)
        if self.announced and trainer.world_size == 1:
            trainer.save_checkpoint(self.path)
            self.announced = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:  # a search's callback, in the first process alone, may have said so
            trainer.should_stop = trainer.strategy.reduce_boolean_decision(trainer.should_stop, all=False)

    def agree(self, trainer: L.Trainer) -> bool:
        """Whether any of the processes was asked to end, of which all of them then know."""
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
    """The signal that says that this job's time is up, and that it is to be queued again; none where no machine does.

    Submitit's handler of its own queues the job: ours of Slurm's is not there beside it.
    """
    if _is_submitit():
        return [signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]]
    return [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []


def requeue(signum: int) -> str | None:
    """Has this job queued again; why that did not work, if it did not.

    Args:
        signum: the signal that asked for it.

    Raises:
        SystemExit: in a job of submitit's, whose exit code says so.
    """
    if _is_submitit():
        handler: Any = signal.getsignal(signum)
        try:
            handler(signum, None)
        except Exception as error:  # submitit's, when the job has been queued as often as it may
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
    """Whether this is a job that Slurm or torchrun has started before."""
    return any(int(os.environ.get(f"{name}_RESTART_COUNT") or 0) > 0 for name in ("SLURM", "TORCHELASTIC"))
