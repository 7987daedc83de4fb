r"""One batch on several processes, so that they come to what a single one would.

Of every batch each process has a share of consecutive images. Where a step looks at one image at a time, gradients and
figures only have to be weighted by the sizes of the shares. The rest is here: noise that is the same whichever process
has an image, and statistics of the whole batch for objectives that look at more than one image.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """Which of a batch's images a process has.

    Attributes:
        start, stop: the images, in the order of the batch; none, where there are fewer than processes.
        total: how many there are in the batch.
        processes: how many share it.
    """

    start: int
    stop: int
    total: int
    processes: int = 1

    @classmethod
    def of(cls, total: int, rank: int = 0, processes: int = 1) -> "Shard":
        """The share of one process: as many as any other's, but for one."""
        each = total / processes
        return cls(round(each * rank), round(each * (rank + 1)), total, processes)

    @property
    def count(self) -> int:
        """How many images they are."""
        return self.stop - self.start

    @property
    def rows(self) -> slice:
        """The images that are computed: where there are none, another process's, which counts for nothing here."""
        start = min(self.start, self.total - 1)
        return slice(start, max(self.stop, start + 1))

    @property
    def weight(self) -> float:
        """What the mean over these images counts for in a mean over processes, to make one over all images of it."""
        return self.count * self.processes / self.total


_share: Shard | None = None  # of the batch that is being computed, where others have a part of it
_of_images = False  # whether what is drawn belongs to its images


@contextmanager
def shared(share: Shard | None) -> Iterator[None]:
    """Says which share of a batch is computed inside."""
    global _share
    before, _share = _share, share if share is not None and share.processes > 1 else None
    try:
        yield
    finally:
        _share = before


@contextmanager
def noise_of_images() -> Iterator[None]:
    """Says that the noise drawn inside is for the images of the batch, its last dimension but one."""
    global _of_images
    before, _of_images = _of_images, True
    try:
        yield
    finally:
        _of_images = before


def standard_normal(shape: torch.Size, like: Tensor) -> Tensor:
    """Independent standard normal numbers on the device and in the precision of a tensor.

    What belongs to images is drawn for the whole batch, of which the share's is kept: an image meets the same noise
    whichever process has it, and the generators of all processes stay the same. It is little beside the networks' work.
    """
    if _share is None or not _of_images:
        return torch.randn(shape, dtype=like.dtype, device=like.device)
    whole = torch.Size((*shape[:-2], _share.total, shape[-1]))
    return torch.randn(whole, dtype=like.dtype, device=like.device)[..., _share.rows, :]


def share() -> Shard | None:
    """The share that is being computed; ``None`` where it is all there is."""
    return _share


def average(mean: Tensor) -> Tensor:
    """The mean over the whole batch of what is given as the mean over the share's images; any shape, differentiable."""
    if _share is None:
        return mean
    return _sum(mean * _share.count) / _share.total


def gather(values: Tensor, dim: int = 0) -> Tensor:
    """The whole batch's values, in its order, of which the share's are given along a dimension; differentiable."""
    if _share is None:
        return values
    own = values.narrow(dim, 0, _share.count).movedim(dim, -1)
    return _sum(F.pad(own, (_share.start, _share.total - _share.stop))).movedim(-1, dim)


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


class _Sum(torch.autograd.Function):
    """The sum over all processes, of which torch has none that is differentiable and to stay."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total
