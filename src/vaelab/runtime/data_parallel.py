r"""One batch on several processes, with the results of a single process.

Each process gets a shard of every batch: consecutive images. Where a step looks at one image at a time, gradients and
metrics only need the weights of the shards. A :class:`Shard` provides the rest: noise that is the same whichever
process has an image, and statistics of the whole batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """The images of a batch that one process has.

    Attributes:
        start, stop: the range of images, in the order of the batch; it is empty if the batch has fewer images than
            there are processes.
        total: images in the batch.
        processes: processes that share the batch.
    """

    start: int
    stop: int
    total: int
    processes: int = 1

    @classmethod
    def of(cls, total: int, rank: int = 0, processes: int = 1) -> "Shard":
        """The shard of one process. The sizes of shards differ by at most one."""
        each = total / processes
        return cls(round(each * rank), round(each * (rank + 1)), total, processes)

    @property
    def count(self) -> int:
        """Images in the shard."""
        return self.stop - self.start

    @property
    def rows(self) -> slice:
        """The images that this process computes. An empty shard computes an image of another process, of weight 0."""
        start = min(self.start, self.total - 1)
        return slice(start, max(self.stop, start + 1))

    @property
    def weight(self) -> float:
        """Weight of this shard's mean, such that the average over processes is the mean over the batch."""
        return self.count * self.processes / self.total

    def randn(self, shape: torch.Size, like: Tensor) -> Tensor:
        """Independent standard normal numbers (..., B, D) for the images of this shard.

        They are drawn for the whole batch, and the rows of the shard are kept. So an image gets the same noise
        whichever process has it, and the generators of all processes stay in the same state.

        Args:
            shape: of the noise; its last but one dimension is that of the images.
            like: a tensor on the device and of the precision of the noise.
        """
        if self.processes == 1:
            return torch.randn(shape, dtype=like.dtype, device=like.device)
        whole = torch.Size((*shape[:-2], self.total, shape[-1]))
        return torch.randn(whole, dtype=like.dtype, device=like.device)[..., self.rows, :]

    def mean(self, mean: Tensor) -> Tensor:
        """The mean over the whole batch, from the mean over this shard; of any shape, differentiable."""
        if self.processes == 1:
            return mean
        return _sum(mean * self.count) / self.total

    def gather(self, values: Tensor, dim: int = 0) -> Tensor:
        """The values of the whole batch, in its order, from those of this shard; differentiable.

        Args:
            values: of the images that this process computes, along a dimension.
            dim: that dimension.
        """
        if self.processes == 1:
            return values
        own = values.narrow(dim, 0, self.count).movedim(dim, -1)
        return _sum(F.pad(own, (self.start, self.total - self.stop))).movedim(-1, dim)


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


class _Sum(torch.autograd.Function):
    """The sum over all processes; torch has no stable one that is differentiable."""

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
