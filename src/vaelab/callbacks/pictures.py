"""Originals over reconstructions, and samples of one fixed batch of latents, during training and at its end."""

import math
from pathlib import Path
from typing import Any

import lightning as L

from vaelab.callbacks.drawing import at_rest, excused, keep, pixels
from vaelab.figures import image_grid, reconstruction_grid
from vaelab.module import VAEModule


class Pictures(L.Callback):
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
            self._draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer, pl_module, "test")

    def _draw(self, trainer: L.Trainer, module: L.LightningModule, split: str) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(module, VAEModule)
        with excused("reconstructions"), at_rest(module):
            datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
            shown = datamodule.splits[split].part(slice(self.count))
            images = pixels(shown.images, next(module.parameters()))
            reconstructions = module.vae.reconstruct(images, shown.labels.to(images.device))
            grid = reconstruction_grid(images, reconstructions, scale=self.scale)
            keep(trainer, self.folder, "reconstructions", grid, split)
        with excused("samples"), at_rest(module):
            columns = None if math.isqrt(self.count) ** 2 == self.count else 8
            grid = image_grid(module.vae.sample(self.count), columns, self.scale)
            keep(trainer, self.folder, "samples", grid, split)
