"""What drawing comes to, or why it does not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vaelab.visualization.plots import RGBImage


@dataclass
class GalleryImage:
    """A picture and what it shows.

    Attributes:
        image: all of it.
        arrays: the numbers it was drawn from, by name; pictures as floats in [0, 1], (..., C, H, W).
        frames: the same as it moves, if it does, pictures of one size.
    """

    image: RGBImage
    arrays: dict[str, Any] = field(default_factory=dict)
    frames: Sequence[RGBImage] = ()
