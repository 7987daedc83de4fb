"""What all that draws during a run has in common: it leaves the training alone and never ends it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from vaelab.figures import Picture, save_png
from vaelab.module import evaluation_noise
from vaelab.pictures import CannotDraw

log = logging.getLogger(__name__)


@contextmanager
def at_rest(module: L.LightningModule) -> Iterator[None]:
    """Evaluation mode, no gradients and the same random numbers every time; afterwards all is as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad(), evaluation_noise(module.device):
            yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def excused(name: str) -> Iterator[None]:
    """Makes one line of the log of whatever keeps a picture from being drawn."""
    try:
        yield
    except CannotDraw as reason:
        log.info("%s: not drawn: %s", name, reason)
    except Exception as error:
        log.warning("%s: could not be drawn: %s: %s", name, type(error).__name__, str(error).partition("\n")[0])


def keep(trainer: L.Trainer, folder: Path, name: str, picture: Picture, split: str) -> None:
    """Writes ``<name>.png`` and sends the picture, as ``<split>/<name>``, to the loggers that show pictures."""
    save_png(picture, folder / f"{name}.png")
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"{split}/{name}", [picture], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(f"{split}/{name}", picture, trainer.global_step, dataformats="HWC")


def show_gif(trainer: L.Trainer, name: str, path: Path) -> None:
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
