"""The link ``logs/train/latest`` to the newest training."""

import logging
import os
from pathlib import Path

import lightning as L

from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.paths import ROOT

log = logging.getLogger(__name__)


class LatestLink(L.Callback):
    """Links ``logs/train/latest`` to this run after its first epoch, if its folder lies below ``logs/train``."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._link()  # the checkpoint of this epoch is written right after

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and RunFolder(self.run_dir).has_checkpoints:  # also if no epoch was left
            self._link()

    def _link(self) -> None:
        home = ROOT / "logs" / "train"
        if home not in self.run_dir.parents:
            return
        partial = home / f".latest.{os.getpid()}"
        try:
            partial.unlink(missing_ok=True)
            partial.symlink_to(os.path.relpath(self.run_dir, home))
            os.replace(partial, home / "latest")
        except OSError as error:
            log.warning("%s could not be pointed at this run: %s", home / "latest", error)
