"""What drawing comes to, or why it does not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vaelab.errors import UserError
from vaelab.figures import Picture


class CannotDraw(UserError):  # noqa: N818  # not every model and data set has every picture
    """What a picture needs is not there: an error where it was asked for, else a remark."""


@dataclass
class Drawn:
    """A picture and what it shows.

    Attributes:
        picture: all of it.
        arrays: the numbers it was drawn from, by name; pictures as floats in [0, 1], (..., C, H, W).
        frames: the same as it moves, if it does, pictures of one size.
    """

    picture: Picture
    arrays: dict[str, Any] = field(default_factory=dict)
    frames: Sequence[Picture] = ()
