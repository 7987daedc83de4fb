"""What a data set must offer to be used as ``data=...``."""

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
        factors: float32, shape (N, F), the values the images were generated from, where these are known.
        is_official: whether they are those of which figures are published, where there are such.
    """

    images: Tensor
    labels: Tensor
    factors: Tensor | None = None
    is_official: bool = True

    def part(self, which: slice | Tensor) -> "Images":
        """Some of the images: a slice of them, or those with these numbers."""
        factors = None if self.factors is None else self.factors[which]
        return Images(self.images[which], self.labels[which], factors, self.is_official)


def recognized(images: Tensor, labels: Tensor, first: Sequence[int], count: int, what: str) -> Images:
    """Images that are the official ones if they are as many and their labels begin so; a warning if they are not.

    Args:
        images, labels: as of :class:`Images`.
        first: labels that the official files begin with.
        count: the number of official images.
        what: the split and where it is from, for the warning.
    """
    is_official = labels[: len(first)].tolist() == list(first) and len(labels) == count
    if not is_official:
        log.warning("%s is not the official one: its figures are not comparable with published ones", what)
    return Images(images, labels, is_official=is_official)


class Source(Protocol):
    """A data set with an official train and test split.

    ``classes`` are the classes' names, for sources that have to look once they are prepared or loaded. A source whose
    images were generated from known factors names them in ``factor_names``, in the order of their columns.
    """

    name: str
    classes: tuple[str, ...]

    def prepare(self) -> None:
        """Downloads or renders what is missing; called by one process per machine, before any ``load``."""

    def load(self, train: bool) -> Images:
        """The training split or the test split, whole and in its official order."""
