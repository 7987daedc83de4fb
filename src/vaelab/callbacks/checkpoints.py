"""Checkpoints that know the best one, wherever the training goes on."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only


class Checkpoint(ModelCheckpoint):
    """Lightning's checkpoints; one that is continued in another folder takes the best one along.

    Lightning's own forget it there, and call the best epoch since then the best.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = Path(state_dict["best_model_path"])
        if self.monitor and self.dirpath != state_dict["dirpath"] and best.name == "best.ckpt" and best.is_file():
            here = Path(str(self.dirpath)) / best.name
            _copy(best, here)
            state_dict = {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": str(here),
                "best_k_models": {str(here): state_dict["best_model_score"]},
                "kth_best_model_path": str(here),
                "last_model_path": "",
            }
        super().load_state_dict(state_dict)


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
