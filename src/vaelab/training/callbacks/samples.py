"""Reconstructions below their originals, and samples of fixed latents, during the training and after the test."""

from pathlib import Path
from typing import Literal

import lightning as L

from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.console import best_effort
from vaelab.runtime.random import eval_mode
from vaelab.runtime.validation import NonNegativeInt, PositiveInt
from vaelab.training.callbacks.image_logging import log_image
from vaelab.training.lightning_module import VAEModule
from vaelab.visualization.gallery import reconstructions, samples


class Samples(L.Callback):
    """Draws ``reconstructions.png`` and ``samples.png``, and sends them to W&B and TensorBoard.

    During the training it uses validation images and the current weights. After the test it uses test images and the
    tested weights. The files hold the latest plots; the loggers store all of them.

    Args:
        folder: of the files.
        every_n_epochs: plot after every so many epochs; 0 for only after the test.
        count: the number of reconstructed images, and of samples. A square number such as 25 or 64 makes a square.
        scale: pixels on the screen per pixel of an image.
    """

    def __init__(
        self, folder: str, every_n_epochs: NonNegativeInt = 5, count: PositiveInt = 32, scale: PositiveInt = 3
    ) -> None:
        self.folder, self.every_n_epochs, self.count, self.scale = Path(folder), every_n_epochs, count, scale

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._plot(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._plot(trainer, pl_module, "test")

    def _plot(self, trainer: L.Trainer, module: L.LightningModule, split: Literal["val", "test"]) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(module, VAEModule)
        model = TrainedModel.of(module, trainer.datamodule)  # type: ignore[attr-defined]
        with best_effort("reconstructions"), eval_mode(module):
            plot = reconstructions(model, self.count, split, self.scale)
            log_image(trainer, self.folder, "reconstructions", plot.image, split)
        with best_effort("samples"), eval_mode(module):
            plot = samples(model, self.count, scale=self.scale)
            log_image(trainer, self.folder, "samples", plot.image, split)
