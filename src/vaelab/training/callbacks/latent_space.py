"""The latent codes that a report shows, written while the model is in memory."""

from pathlib import Path
from typing import Any

import lightning as L

from vaelab.runtime.console import best_effort
from vaelab.runtime.random import eval_mode
from vaelab.runtime.validation import AtLeastTwo
from vaelab.training.lightning_module import VAEModule


class LatentSpace(L.Callback):
    """Writes ``latents.npz`` after the test, with the tested weights and test images.

    Args:
        path: of the file.
        images: the number of test images, evenly spaced; fewer are used if they are large.
    """

    def __init__(self, path: str, images: AtLeastTwo = 2000) -> None:
        self.path, self.images = Path(path), images

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, VAEModule)
        with best_effort(self.path.name), eval_mode(pl_module):
            from vaelab.runs.trained_model import TrainedModel
            from vaelab.visualization.report import latent_space

            datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
            latent_space.write(TrainedModel.of(pl_module, datamodule), self.path, self.images)
