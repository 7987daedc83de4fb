"""An image of the gallery."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vaelab.visualization.plots import RGBImage


@dataclass
class GalleryImage:
    """An image of the gallery, with its data.

    Attributes:
        image: the image.
        arrays: the data in the image, by name; images among them are floats in [0, 1], (..., C, H, W).
        frames: images of one size, if there is an animation.
    """

    image: RGBImage
    arrays: dict[str, Any] = field(default_factory=dict)
    frames: Sequence[RGBImage] = ()
