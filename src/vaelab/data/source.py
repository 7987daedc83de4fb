"""The interface of a data set that ``data=...`` can select."""

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

log = logging.getLogger(__name__)


class Images(NamedTuple):
    """One split of a data set, in memory.

    Attributes:
        images: uint8, shape (N, C, H, W), 0 to 255.
        labels: int64, shape (N,); classes from 0.
        factors: float32, shape (N, F): the values from which the images were generated; ``None`` if unknown.
        is_official: whether this is the split on which published metrics were computed. It is true for data sets
            without published metrics.
    """

    images: Tensor
    labels: Tensor
    factors: Tensor | None = None
    is_official: bool = True

    def part(self, which: slice | Tensor) -> "Images":
        """Some of the images: a slice of them, or those with these indices."""
        factors = None if self.factors is None else self.factors[which]
        return Images(self.images[which], self.labels[which], factors, self.is_official)


def recognized(images: Tensor, labels: Tensor, first: Sequence[int], count: int, what: str) -> Images:
    """A split, marked as official if its size and its first labels are those of the official files.

    Otherwise it logs a warning.

    Args:
        images, labels: see :class:`Images`.
        first: the first labels of the official files.
        count: the number of official images.
        what: the name of the split and its folder, for the warning.
    """
    is_official = labels[: len(first)].tolist() == list(first) and len(labels) == count
    if not is_official:
        log.warning("%s is not the official one: its metrics are not comparable with published ones", what)
    return Images(images, labels, is_official=is_official)


class Source(Protocol):
    """A data set with a training split and a test split.

    ``classes`` holds the names of the classes. Some sources know them only after ``prepare`` or ``load``. If the images
    were generated from known factors, ``factor_names`` holds the factors' names, in the order of their columns.

    A source that writes files should have a method ``is_prepared``: whether ``prepare`` has nothing to write. Somebody
    else's checkpoint names folders. They are used only if this is true.
    """

    name: str
    classes: tuple[str, ...]

    def prepare(self) -> None:
        """Downloads or renders missing files. One process per machine calls it, before any ``load``."""

    def load(self, train: bool) -> Images:
        """All images of the training split or the test split, in their official order."""
