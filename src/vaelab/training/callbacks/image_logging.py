"""What all that draws during a run has in common: it leaves the training alone and never ends it."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from vaelab.visualization.plots import RGBImage, save_png

log = logging.getLogger(__name__)


def log_image(trainer: L.Trainer, folder: Path, name: str, picture: RGBImage, split: str) -> None:
    """Writes ``<name>.png`` and sends the picture, as ``<split>/<name>``, to the loggers that show pictures."""
    save_png(picture, folder / f"{name}.png")
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"{split}/{name}", [picture], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(f"{split}/{name}", picture, trainer.global_step, dataformats="HWC")


def log_gif(trainer: L.Trainer, name: str, path: Path) -> None:
    """Sends an animation to the loggers that show animations."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_video(name, [str(path)], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            # Its own add_video encodes GIFs by moviepy, and writes them as what they are here: an image.
            from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

            image: Any = Summary.Image(colorspace=3, encoded_image_string=path.read_bytes())
            summary = Summary(value=[Summary.Value(tag=name, image=image)])
            logger.experiment.file_writer.add_summary(summary, trainer.global_step)
