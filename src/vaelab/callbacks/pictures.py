"""Originals over reconstructions, and samples of one fixed batch of latents, during training and at its end."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from vaelab.figures import Picture, image_grid, reconstruction_grid, save_png
from vaelab.module import VAEModule, evaluation_noise


class Pictures(L.Callback):
    """Draws ``reconstructions.png`` and ``samples.png``, and sends them to W&B and TensorBoard.

    While training, of validation images with the weights of the moment; after the test, of test images with the weights
    that were tested. The files hold the latest; the loggers keep them all.

    Args:
        folder: where the files go.
        every_n_epochs: how often while training; 0 for never.
        count: images reconstructed, and samples drawn.
        scale: pixels on the screen per pixel of an image.
    """

    def __init__(self, folder: str, every_n_epochs: int = 5, count: int = 32, scale: int = 3) -> None:
        self.folder, self.every_n_epochs, self.count, self.scale = Path(folder), every_n_epochs, count, scale

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer, pl_module, "test")

    @torch.no_grad()
    def _draw(self, trainer: L.Trainer, module: L.LightningModule, split: str) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(module, VAEModule)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        images = datamodule.splits[split].images[: self.count].to(module.device).float() / 255
        with evaluation_noise(module.device):
            pictures = {
                "reconstructions": reconstruction_grid(images, module.vae.reconstruct(images), scale=self.scale),
                "samples": image_grid(module.vae.sample(self.count), columns=8, scale=self.scale),
            }
        for name, picture in pictures.items():
            save_png(picture, self.folder / f"{name}.png")
            _log_picture(trainer, f"{split}/{name}", picture)


def _log_picture(trainer: L.Trainer, name: str, picture: Picture) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [picture], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, trainer.global_step, dataformats="HWC")
