"""Animations of a training: the same latents, decoded after every epoch."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaelab.models.vae import VAE
from vaelab.runtime.console import best_effort
from vaelab.runtime.random import eval_mode
from vaelab.runtime.validation import AtLeastTwo, Milliseconds, NonNegativeInt, PositiveInt
from vaelab.training.callbacks.image_logging import log_gif
from vaelab.training.lightning_module import VAEModule
from vaelab.training.lightning_workarounds import batches_trained
from vaelab.visualization.plots import (
    RGBImage,
    at_most,
    captioned,
    image_grid,
    manifold_latents,
    save_gif,
    save_png,
)

_LARGEST = 640  # pixels along a side of the manifold


def samples(vae: VAE, count: PositiveInt = 16, scale: PositiveInt = 3) -> RGBImage:
    """Samples of the model: images decoded from latents of the prior."""
    return image_grid(vae.sample(count), scale=scale)


def manifold(vae: VAE, count: PositiveInt = 20) -> RGBImage:
    """Images decoded from latent space at normal quantiles, see :func:`vaelab.visualization.plots.manifold_latents`.

    With more than two latent dimensions, the latents lie in a plane with a random direction, the same in every frame.
    The dimensions that the model will use are not known when the training begins. The plane passes through a random
    point of a standard normal, because latents near zero are not typical of the prior.
    """
    like: Tensor = next(vae.parameters())
    dims = range(min(vae.latent_dim, 2))
    z = manifold_latents(count, len(dims), dims)
    if vae.latent_dim > 2:
        random = torch.randn(3, vae.latent_dim, generator=torch.Generator().manual_seed(0))
        plane = torch.linalg.qr(random[:2].T).Q  # (latent_dim, 2), orthonormal
        z = random[2] + (z - random[2] @ plane) @ plane.T
    z = z.to(like)
    first = torch.zeros(len(z), dtype=torch.int64, device=z.device)  # a conditional model is shown for its first class
    images = at_most(vae.decode(z, first).mean, _LARGEST // count)
    return image_grid(images, columns=count, gap=0)


class Animation(L.Callback):
    """Draws a frame before the training and after every epoch, and joins them into ``<name>.gif`` at the end.

    Frames are stored as ``frames/<name>/<number>.png``, so that a resumed training adds to them. Frame 0 shows the
    model before the training. Each later moment for a frame has the next number. If there are more than ``max_frames``,
    every second frame is deleted, and from then on only every second frame is made.

    Args:
        folder: of the files.
        name: of the animation.
        scene: makes a frame of the model; it gets the same random numbers for every frame.
        every_n_batches: in the first epoch, also make a frame after every so many batches; 0 for none.
        max_frames: the largest number of frames, without the first and the last.
        frame_ms: duration of a frame in milliseconds.
        hold_ms: duration of the last frame in milliseconds.
    """

    def __init__(
        self,
        folder: str,
        name: str,
        scene: Callable[[VAE], RGBImage],
        every_n_batches: NonNegativeInt = 0,
        max_frames: AtLeastTwo = 100,
        frame_ms: Milliseconds = 200,
        hold_ms: Milliseconds = 2000,
    ) -> None:
        self.folder, self.name, self.scene = Path(folder), name, scene
        self.frames = self.folder / "frames" / name
        self.every_n_batches, self.max_frames = every_n_batches, max_frames
        self.frame_ms, self.hold_ms = frame_ms, hold_ms
        self._epochs = 0
        self._failed = False
        self._is_over = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epochs, self._failed = trainer.current_epoch, False
        if trainer.is_global_zero:
            with best_effort(f"{self.name}.gif"):
                # Frames of an earlier training in this folder, or of epochs that are trained again.
                for number, frame in self._frames().items():
                    if number > self._number(trainer) or trainer.global_step == 0:
                        frame.unlink()
        self._plot(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = self.every_n_batches
        if every and trainer.current_epoch == 0 and (batch_idx + 1) % every == 0 and not trainer.is_last_batch:
            self._plot(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epochs = trainer.current_epoch + 1
        self._plot(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._is_over:  # no step was left: an earlier attempt may have ended before its animation
            self._epochs = trainer.current_epoch
            self._end(trainer, pl_module)

    def _end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._plot(trainer, pl_module, last=True)
        self._write_gif(trainer)
        self._is_over = True

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._write_gif(trainer)

    def _number(self, trainer: L.Trainer) -> int:
        """The number of the current frame; 0 before the training."""
        return self._epochs + (self._batches(trainer) // self.every_n_batches if self.every_n_batches else 0)

    def _batches(self, trainer: L.Trainer) -> int:
        """Trained batches of the first epoch, except for its last one, which counts as the end of the epoch."""
        return int(min(batches_trained(trainer), trainer.num_training_batches - 1))

    def _frames(self) -> dict[int, Path]:
        return {int(path.stem): path for path in sorted(self.frames.glob("[0-9]*.png"))}

    def _plot(self, trainer: L.Trainer, module: L.LightningModule, last: bool = False) -> None:
        if not trainer.is_global_zero or self._failed:
            return
        number = self._number(trainer)
        stride = 2 ** max(0, math.ceil(math.log2(max(number, 1) / self.max_frames)))
        path = self.frames / f"{number:06d}.png"
        if (number % stride and not last) or path.exists():
            return
        assert isinstance(module, VAEModule)
        self._failed = True
        with best_effort(f"{self.name}.gif"):
            with eval_mode(module):
                image = self.scene(module.vae)
            save_png(captioned(image, self._caption(trainer)), path)
            for other, frame in self._frames().items():
                if other % stride and other != number:
                    frame.unlink()
            self._failed = False

    def _caption(self, trainer: L.Trainer) -> str:
        if self._epochs:
            return f"epoch {self._epochs}"
        batches = self._batches(trainer)
        return f"epoch 1, batch {batches}" if batches else "before training"

    def _write_gif(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        with best_effort(f"{self.name}.gif"):
            frames = [np.asarray(Image.open(path)) for path in self._frames().values()]
            if frames:
                path = save_gif(frames, self.folder / f"{self.name}.gif", self.frame_ms, self.hold_ms)
                log_gif(trainer, f"train/{self.name}", path)
