"""Checkpoints that are always complete, and that find the best one when a training is resumed in another folder."""

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
from torch import Tensor

from vaelab.runtime.errors import UserError
from vaelab.runtime.files import atomic_write
from vaelab.runtime.overrides import typed
from vaelab.runtime.validation import PositiveInt, PositiveNumber, checked
from vaelab.training.lightning_workarounds import StepCheckpoint, is_last_step

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file beside its place, and renames it when it is complete on the disk.

    If the process or the machine stops meanwhile, the previous checkpoint is intact. (Lightning writes to the system's
    temporary folder. If that is another disk, it copies the file from there.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            UserError: the disk is full, or the file must not be written.
        """
        target = Path(path)
        try:
            for leftover in target.parent.glob(f".{target.name}.*.partial"):  # of a process that was killed
                leftover.unlink(missing_ok=True)
            with atomic_write(target, is_durable=True) as file:
                torch.save(checkpoint, file)
        except OSError as error:
            there = [file for file in (target, *sorted(target.parent.glob("*.ckpt"), reverse=True)) if file.is_file()]
            what_next = (
                f"the previous checkpoint is intact: make room, and resume with {typed('ckpt_path', there[0])}"
                if there
                else "there is no previous checkpoint: make room, or type hydra.run.dir=<a folder on another disk>"
            )
            raise UserError(f"the checkpoint {target} could not be written ({error.strerror}); {what_next}") from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint, which may hold only tensors and plain values."""
        return super().load_checkpoint(path, map_location or (lambda storage, _: storage), weights_only=True)


class Checkpoint(StepCheckpoint):
    """Lightning's checkpoints, which also work if a training is resumed in another folder or within an epoch.

    A training that is resumed in another folder copies the best checkpoint to it. Lightning would forget that
    checkpoint and choose the best among the later epochs only.

    An epoch whose metric is infinite or not a number is never the best one.

    After the last step of an epoch, a checkpoint is written only when the epoch has ended. A training resumed from an
    earlier one would skip the validation of that epoch.

    Args:
        every_n_minutes: within an epoch, write a checkpoint after every so many minutes; ``None`` for none. It is
            ignored if ``every_n_train_steps`` is set.
        every_n_train_steps: write a checkpoint after every so many steps; ``None`` for none.
        options: of Lightning's ``ModelCheckpoint``.

    Attributes:
        resumed_from: the checkpoint from which the training is resumed.
    """

    resumed_from: Path | None = None
    _is_restored = False

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
    def state_key(self) -> str:  # cached, because Lightning asks for it six times in a step
        return super().state_key

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # A checkpoint does not store gradients that are still being accumulated.
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if is_last_step(trainer):  # e.g. by trainer.max_steps: the training can be resumed within the epoch
            self._write_last(trainer)
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        return current is not None and bool(current.isfinite()) and super().check_monitor_top_k(trainer, current)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.monitor and self.monitor not in trainer.callback_metrics:
            return  # there was no validation yet
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.is_last_batch or self.saved_step != trainer.global_step:
            self._write_last(trainer)

    def _write_last(self, trainer: L.Trainer) -> None:
        if not self.monitor and self.writes_within_epochs:
            trainer.save_checkpoint(Path(str(self.dirpath)) / f"{self.filename}.ckpt")
            self.saved_step = trainer.global_step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.monitor and self.resumed_from is not None and not self._is_restored:
            log.warning(
                "the run had no best epoch by monitor=%s and mode=%s: it is chosen among the epochs from now on",
                self.monitor,
                self.mode,
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._is_restored = True
        best = Path(state_dict["best_model_path"])
        if self.monitor and best.name == "best.ckpt":
            if not best.is_file() and self.resumed_from is not None:  # the run folder was moved
                best = self.resumed_from.with_name(best.name)
            here = Path(str(self.dirpath)) / best.name
            found = best.is_file()
            if not found:
                log.warning("%s does not exist any more: the best epoch is chosen among the epochs from now on", best)
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
