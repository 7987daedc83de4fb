"""Checkpoints that are whole or not there, and know the best one, wherever the training goes on."""

import logging
import shutil
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from vaelab.runtime.errors import UserError
from vaelab.runtime.files import atomic_write
from vaelab.runtime.validation import PositiveInt, PositiveNumber, checked
from vaelab.training.lightning_workarounds import StepCheckpoint, is_last_step

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, and puts it there when all of it is on the disk.

    Whatever happens meanwhile, the one that was there before is whole. (Lightning writes to the system's folder for
    temporary files, and from there copies, where that is another disk.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes it.

        Raises:
            UserError: the disk is full, or may not be written to.
        """
        target = Path(path)
        try:
            for left in target.parent.glob(f".{target.name}.*.partial"):  # by a process that was killed here
                left.unlink(missing_ok=True)
            with atomic_write(target, is_durable=True) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "writ" not in str(error):  # what torch makes of a full disk
                raise
            earlier = "the one before it is whole" if target.is_file() else "there was none before it"
            raise UserError(
                f"the checkpoint {target} could not be written ({str(error).splitlines()[0]}); {earlier}: make room, "
                "and go on with ckpt_path=..."
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads it, and nothing but tensors and plain values."""
        return super().load_checkpoint(path, map_location or (lambda storage, _: storage), weights_only=True)


class Checkpoint(StepCheckpoint):
    """Lightning's checkpoints; one that is continued in another folder takes the best one along.

    Lightning's own forget it there, and call the best epoch since then the best. Those of every so many steps leave out
    an epoch's last step, since what goes on from there passes over the epoch's validation: they are written when the
    epoch is really over.

    Args:
        every_n_minutes: a number of minutes after which one is written within an epoch; ``None`` for none. It has no
            effect where ``every_n_train_steps`` is set.
        every_n_train_steps: a number of steps after which one is.
        options: Lightning's.

    Attributes:
        resumed_from: the checkpoint that the training goes on from.
    """

    resumed_from: Path | None = None

    @checked
    def __init__(
        self,
        *,
        every_n_minutes: PositiveNumber | None = None,
        every_n_train_steps: PositiveInt | None = None,
        **options: Any,
    ) -> None:
        interval = timedelta(minutes=every_n_minutes) if every_n_minutes and not every_n_train_steps else None
        super().__init__(every_n_train_steps=every_n_train_steps, train_time_interval=interval, **options)

    @cached_property
    def state_key(self) -> str:  # of which Lightning makes a new one six times in a step
        return super().state_key

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Half of the gradients that make up a step are in no checkpoint.
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if is_last_step(trainer):  # by trainer.max_steps, say: it can go on in the middle of its epoch
            self._keep_last(trainer)
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.monitor and self.monitor not in trainer.callback_metrics:
            return  # the training ended before it was validated, which is made good after it
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.is_last_batch or self.saved_step != trainer.global_step:
            self._keep_last(trainer)

    def _keep_last(self, trainer: L.Trainer) -> None:
        if not self.monitor and self.writes_within_epochs:
            trainer.save_checkpoint(Path(str(self.dirpath)) / f"{self.filename}.ckpt")
            self.saved_step = trainer.global_step

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = Path(state_dict["best_model_path"])
        if self.monitor and best.name == "best.ckpt":
            if not best.is_file() and self.resumed_from is not None:  # the run has been moved, and it with it
                best = self.resumed_from.with_name(best.name)
            here = Path(str(self.dirpath)) / best.name
            found = best.is_file()
            if not found:
                log.warning("%s is not there any more: the best epoch is chosen anew, from here on", best)
            elif best.resolve() != here.resolve():
                _copy(best, here)
            path = str(here) if found else ""
            state_dict = {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": path,
                "best_model_score": state_dict["best_model_score"] if found else None,
                "best_k_models": {path: state_dict["best_model_score"]} if found else {},
                "kth_best_model_path": path,
                "kth_value": state_dict["kth_value"] if found else self.kth_value,
                "last_model_path": "",
            }
        super().load_state_dict(state_dict)


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, atomic_write(target, is_durable=True) as written:
        shutil.copyfileobj(read, written)
