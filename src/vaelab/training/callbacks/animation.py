"""A training as an animation: the same latents, decoded again and again."""

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

_LARGEST = 640  # pixels along a side of a manifold


def samples(vae: VAE, count: int = 16, scale: int = 3) -> RGBImage:
    """Images decoded from latents of the prior."""
    return image_grid(vae.sample(count), scale=scale)


def manifold(vae: VAE, count: int = 20) -> RGBImage:
    """Images decoded from latent space at normal quantiles, see :func:`vaelab.visualization.plots.manifold_latents`.

    Of more than two dimensions they are of a plane in a direction of chance, the same in every frame, since which
    dimensions come into use is not known when a training begins; in all others they are one draw of a standard normal,
    since images at zero would be like no samples.
    """
    like: Tensor = next(vae.parameters())
    dims = range(min(vae.latent_dim, 2))
    z = manifold_latents(count, len(dims), dims)
    if vae.latent_dim > 2:
        chance = torch.randn(3, vae.latent_dim, generator=torch.Generator().manual_seed(0))
        plane = torch.linalg.qr(chance[:2].T).Q  # (latent_dim, 2), orthonormal
        z = chance[2] + (z - chance[2] @ plane) @ plane.T
    z = z.to(like)
    first = torch.zeros(len(z), dtype=torch.int64, device=z.device)  # what a conditional model is shown for
    images = at_most(vae.decode(z, first).mean, _LARGEST // count)
    return image_grid(images, columns=count, gap=0)


class Animation(L.Callback):
    """Draws a frame before the training and after every epoch, and in the end ``<name>.gif`` of all of them.

    The frames lie in ``frames/<name>/<number>.png``, so that a resumed training adds to those that are there. Frame 0
    is the model before training; each moment at which there could be a frame has the next number. When there are too
    many, every second is dropped and from then on only every second is drawn.

    Args:
        folder: where the files go.
        name: of the animation.
        scene: what is drawn of the model; its random numbers are the same for every frame.
        every_n_batches: draw a frame also after so many batches of the first epoch; 0 for not.
        max_frames: of an animation, not counting the first and the last.
        frame_ms: how long a frame is shown, milliseconds.
        hold_ms: how long the last one is.
    """

    def __init__(
        self,
        folder: str,
        name: str,
        scene: Callable[[VAE], RGBImage],
        every_n_batches: int = 0,
        max_frames: int = 100,
        frame_ms: int = 200,
        hold_ms: int = 2000,
    ) -> None:
        self.folder, self.name, self.scene = Path(folder), name, scene
        self.frames = self.folder / "frames" / name
        self.every_n_batches, self.max_frames = every_n_batches, max_frames
        self.frame_ms, self.hold_ms = frame_ms, hold_ms
        self._epochs = 0
        self._failed = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epochs, self._failed = trainer.current_epoch, False
        if trainer.is_global_zero:
            with best_effort(f"{self.name}.gif"):
                # Of another training that was here, or of epochs that are trained again.
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
        self._plot(trainer, pl_module, last=True)
        self._join(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._join(trainer)

    def _number(self, trainer: L.Trainer) -> int:
        """Moments for a frame until now, the one before the training not counted."""
        return self._epochs + (self._batches(trainer) // self.every_n_batches if self.every_n_batches else 0)

    def _batches(self, trainer: L.Trainer) -> int:
        """Batches of the first epoch that were trained on; its last one counts as the epoch's end."""
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
                picture = self.scene(module.vae)
            save_png(captioned(picture, self._caption(trainer)), path)
            for other, frame in self._frames().items():
                if other % stride and other != number:
                    frame.unlink()
            self._failed = False

    def _caption(self, trainer: L.Trainer) -> str:
        if self._epochs:
            return f"epoch {self._epochs}"
        batches = self._batches(trainer)
        return f"epoch 1, batch {batches}" if batches else "before training"

    def _join(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        with best_effort(f"{self.name}.gif"):
            pictures = [np.asarray(Image.open(path)) for path in self._frames().values()]
            if pictures:
                path = save_gif(pictures, self.folder / f"{self.name}.gif", self.frame_ms, self.hold_ms)
                log_gif(trainer, f"train/{self.name}", path)
