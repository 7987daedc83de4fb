"""What a data set must offer to be used as ``data=...``."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Images(NamedTuple):
    """One split of a data set, in memory.

    Attributes:
        images: uint8, shape (N, C, H, W), 0 to 255.
        labels: int64, shape (N,); classes from 0.
        factors: float32, shape (N, F), the values the images were generated from, where these are known.
    """

    images: Tensor
    labels: Tensor
    factors: Tensor | None = None

    def part(self, which: slice | Tensor) -> "Images":
        """Some of the images: a slice of them, or those with these numbers."""
        factors = None if self.factors is None else self.factors[which]
        return Images(self.images[which], self.labels[which], factors)


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
