"""Means of metrics over images, gathered on the device: one accumulator for training, validation and test."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class MetricSums:
    """Sums of metrics over images.

    They stay on the device, because to read a number from it at every step costs more than the step of a small network.
    Each process adds its images, and :meth:`table` sums over the processes. (Lightning's mean rounds the mean number
    of images per process down.)

    Args:
        by_batch: store a row for each batch, to find the batch of a non-finite value; otherwise one row for all.

    Attributes:
        names: of the metrics, in the order of the columns.
    """

    def __init__(self, by_batch: bool = False) -> None:
        self.by_batch = by_batch
        self.names: list[str] = []
        self._sums: list[Tensor] = []
        self._counts: list[int] = []

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, names: Sequence[str], sums: Tensor, count: int) -> None:
        """Adds a batch.

        Args:
            names: of the metrics.
            sums: of each metric over the images that were computed, (metrics,).
            count: images of this process; 0 if it computed an image of another process, which does not count.
        """
        self.names = list(names)
        sums = sums if count else torch.zeros_like(sums)
        if self.by_batch or not self._sums:
            self._sums.append(sums)
            self._counts.append(count)
        else:
            self._sums[0] = self._sums[0] + sums
            self._counts[0] += count

    def clear(self) -> None:
        """Removes all batches."""
        self._sums, self._counts = [], []

    def table(self, strategy: Any) -> Tensor:
        """The sums and, in the last column, the number of images, over all processes: (rows, metrics + 1).

        Args:
            strategy: of Lightning's trainer, which knows the other processes.
        """
        sums = torch.stack(self._sums)
        counts = torch.tensor(self._counts, dtype=sums.dtype, device=sums.device)
        table: Tensor = strategy.reduce(torch.cat([sums, counts[:, None]], 1), reduce_op="sum")
        return table

    def means(self, table: Tensor) -> dict[str, float]:
        """The mean of each metric over all images of a table."""
        *sums, count = table.sum(0).tolist()
        return {name: value / max(count, 1) for name, value in zip(self.names, sums, strict=True)}

    def restore(self, rows: Sequence[Tensor], device: torch.device, is_first: bool) -> None:
        """Continues from the rows of a table that a checkpoint holds.

        Args:
            rows: of :meth:`table`.
            device: of the training.
            is_first: whether this is the first process. It takes all images, because the table is of all processes.
        """
        factor = float(is_first)
        self._sums = [row[:-1].to(device) * factor for row in rows]
        self._counts = [round(float(row[-1]) * factor) for row in rows]


def sums_of(terms: Mapping[str, Tensor], count: int) -> Tensor:
    """The sums of an objective's terms over the images of a batch, (terms,).

    Args:
        terms: of each image, shape (B,), or of the batch, a scalar, which counts once for each image.
        count: B.
    """
    return torch.stack([value.detach().expand(count) for value in terms.values()]).sum(1)
