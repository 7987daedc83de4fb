"""What a measure comes to, or why it does not."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vaelab.errors import UserError
from vaelab.figures import Picture
from vaelab.reporting import Figure


class NotMeasured(UserError):  # noqa: N818  # named by what it says
    """Why a measure does not apply: an error where it was asked for, else a remark."""


def mean_over_images(values: Tensor, unit: str, note: str) -> Figure:
    """The mean of values of images (N,), and its standard error where there are several."""
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else None
    return Figure(float(values.mean()), unit, error, note)


@dataclass
class Measured:
    """What a measure comes to.

    Attributes:
        figures: by name.
        pictures: by the name of their file.
        remarks: lines to be read beside the figures.
        arrays: figures of single images or dimensions, by name.
    """

    figures: dict[str, Figure]
    pictures: dict[str, Picture] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
