"""Writes images and animations of a training, and sends them to the loggers."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from vaelab.visualization.plots import RGBImage, save_png


def log_image(trainer: L.Trainer, folder: Path, name: str, image: RGBImage, split: str) -> None:
    """Writes ``<name>.png``, and sends the image to W&B and TensorBoard as ``<split>/<name>``."""
    save_png(image, folder / f"{name}.png")
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"{split}/{name}", [image], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(f"{split}/{name}", image, trainer.global_step, dataformats="HWC")


def log_gif(trainer: L.Trainer, name: str, path: Path) -> None:
    """Sends an animation to W&B and TensorBoard."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_video(name, [str(path)], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            # A GIF is an image to TensorBoard. Its add_video would encode the frames again, and needs moviepy.
            from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

            image: Any = Summary.Image(colorspace=3, encoded_image_string=path.read_bytes())
            summary = Summary(value=[Summary.Value(tag=name, image=image)])
            logger.experiment.file_writer.add_summary(summary, trainer.global_step)
