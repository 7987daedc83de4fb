"""Originals over reconstructions, and samples of one fixed batch of latents, during training and at its end."""

from pathlib import Path

import lightning as L

from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.console import best_effort
from vaelab.runtime.random import eval_mode
from vaelab.training.callbacks.image_logging import log_image
from vaelab.training.lightning_module import VAEModule
from vaelab.visualization.gallery import reconstructions, samples


class Samples(L.Callback):
    """Draws ``reconstructions.png`` and ``samples.png``, and sends them to W&B and TensorBoard.

    While training, of validation images with the weights of the moment; after the test, of test images with the weights
    that were tested. The files hold the latest; the loggers keep them all.

    Args:
        folder: where the files go.
        every_n_epochs: how often while training; 0 for never.
        count: images reconstructed, and samples drawn; a square number of samples, as 25 or 64, makes a square.
        scale: pixels on the screen per pixel of an image.
    """

    def __init__(self, folder: str, every_n_epochs: int = 5, count: int = 32, scale: int = 3) -> None:
        self.folder, self.every_n_epochs, self.count, self.scale = Path(folder), every_n_epochs, count, scale

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._plot(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._plot(trainer, pl_module, "test")

    def _plot(self, trainer: L.Trainer, module: L.LightningModule, split: str) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(module, VAEModule)
        model = TrainedModel.of(module, trainer.datamodule)  # type: ignore[attr-defined]
        with best_effort("reconstructions"), eval_mode(module):
            drawn = reconstructions(model, self.count, split, self.scale)
            log_image(trainer, self.folder, "reconstructions", drawn.image, split)
        with best_effort("samples"), eval_mode(module):
            drawn = samples(model, self.count, scale=self.scale)
            log_image(trainer, self.folder, "samples", drawn.image, split)
