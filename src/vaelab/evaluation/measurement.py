"""What a measure comes to, or why it does not."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vaelab.runs.metrics import Metric
from vaelab.visualization.plots import RGBImage


def mean_over_images(values: Tensor, unit: str, note: str) -> Metric:
    """The mean of values of images (N,), and its standard error where there are several."""
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else None
    return Metric(float(values.mean()), unit, error, note)


@dataclass
class Measurement:
    """What a measure comes to.

    Attributes:
        metrics: by name.
        pictures: by the name of their file.
        remarks: lines to be read beside the figures.
        arrays: figures of single images or dimensions, by name.
    """

    metrics: dict[str, Metric]
    pictures: dict[str, RGBImage] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
