"""Minibatches cut from images in memory.

A data loader that fetches image by image spends more time in Python than a small VAE spends computing. Here the images
stay one uint8 tensor on the training device, and a batch is one gather and one division. Images that do not fit there
stay in main memory or in a memory-mapped file. Then the batch is gathered there and sent to the device as bytes.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.errors import UserError

Binarization = Literal["none", "threshold", "dynamic", "static"]


class Batch(NamedTuple):
    """Images, their labels, and the part of the batch that they are.

    Attributes:
        x: images (B, C, H, W), floats in [0, 1].
        y: labels (B,).
        shard: the part of the batch that this process has.
    """

    x: Tensor
    y: Tensor
    shard: Shard


def to_floats(images: Tensor) -> Tensor:
    """Images as floats in [0, 1]: bytes are divided by 255, floats stay as they are."""
    return images.float() if images.is_floating_point() else images.float().div_(255)


def binarize(images: Tensor, generator: torch.Generator, shard: Shard | None = None) -> Tensor:
    """Draws binary images from grey ones, each pixel 1 with probability grey / 255.

    Args:
        images: uint8, any shape.
        generator: a generator on the images' device.
        shard: the part of a batch that these images are. Random numbers are drawn for the whole batch, so that an
            image gets the same number for any number of processes.

    Returns:
        Zeros and 255s, uint8, of the same shape. The probabilities are exact: ``grey`` of the 255 integers from 0 to
        254 are less than ``grey``.
    """
    drawn = images.new_empty((len(images) if shard is None else shard.total, *images.shape[1:]))
    drawn = drawn.random_(0, 255, generator=generator)[slice(None) if shard is None else shard.rows]
    return (drawn < images).to(torch.uint8).mul_(255)


class Batches:
    """An iterable of batches, see :class:`Batch`.

    The seed and the number of the epoch determine all random numbers. ``resume`` continues an iteration that was
    interrupted within an epoch. Several processes share every batch. Each of its images is used exactly once, and the
    batches are the same for any number of processes.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        batch_size: images per batch, of all processes together.
        shuffle: whether every epoch has a new random order; otherwise it is the order of the images.
        drop_last: whether to leave out an incomplete batch at the end of an epoch.
        dynamic: whether to draw new binary images from the grey ones in every epoch.
        seed: the seed of the order and of the binary images.
        rank, world_size: the index of this process, and the number of processes.
        device: the device of the batches; by default the device of the images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        dynamic: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.images, self.labels = images, labels
        self.device = images.device if device is None else device
        self.batch_size, self.shuffle, self.dynamic, self.seed = batch_size, shuffle, dynamic, seed
        self.rank, self.world_size = rank, world_size
        starts = list(range(0, len(images), batch_size))
        if drop_last and len(starts) > 1 and len(images) % batch_size:
            self._bounds = starts
        else:
            self._bounds = [*starts, len(images)]
        self.epoch = 0
        self._next = 0
        self._resumed = False
        self._generator = torch.Generator(self.device)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        if not self._resumed and self._next:  # the last epoch is over, complete or not
            self.epoch, self._next = self.epoch + 1, 0
        self._resumed = False
        # The order is drawn on the CPU, so that it is the same for every training device.
        generator = torch.Generator().manual_seed(_seed(self.seed, self.epoch))
        order = torch.randperm(len(self.images), generator=generator).to(self.images.device) if self.shuffle else None
        for i in range(self._next, len(self)):
            self._next = i + 1
            start, end = self._bounds[i], self._bounds[i + 1]
            shard = Shard.of(end - start, self.rank, self.world_size)
            rows = slice(start + shard.rows.start, start + shard.rows.stop)
            if order is None:
                x, y = self.images[rows], self.labels[rows]
            else:  # five times faster than indexing with brackets
                chosen = order[rows]
                x, y = self.images.index_select(0, chosen), self.labels.index_select(0, chosen)
            x, y = x.to(self.device), y.to(self.device)
            if self.dynamic:
                # A new seed for each batch, so that a checkpoint needs no state of the generator.
                self._generator.manual_seed(_seed(self.seed, self.epoch, i))
                x = binarize(x, self._generator, shard)
            yield Batch(to_floats(x), y, shard)

    def state(self) -> dict[str, int]:
        """The position of the iteration: the epoch, the index of the next batch, and the batch size."""
        return {"epoch": self.epoch, "next": self._next, "global_batch": self.batch_size}

    def resume(self, state: Mapping[str, int]) -> None:
        """Makes the next iteration start at a position that :meth:`state` returned.

        Raises:
            UserError: the position is within an epoch, and the batch size differs.
        """
        self.epoch, self._next = state["epoch"], state["next"]
        self._resumed = 0 < self._next < len(self)
        if self._resumed and state["global_batch"] != self.batch_size:
            raise UserError(
                f"the training stopped in the middle of an epoch of batches of {state['global_batch']} images and "
                f"cannot resume there with {self.batch_size}: type data.batch_size={state['global_batch']}"
            )


def _seed(*numbers: int) -> int:
    """One seed, computed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint32)[0])
