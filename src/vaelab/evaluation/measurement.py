"""The result of a measure."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vaelab.runs.metrics import Metric
from vaelab.visualization.plots import RGBImage


def mean_over_images(values: Tensor, unit: str, note: str) -> Metric:
    """The mean of one value per image, (N,), with its standard error if there are several images."""
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else None
    return Metric(float(values.mean()), unit, error, note)


@dataclass
class Measurement:
    """The result of a measure.

    Attributes:
        metrics: by name.
        plots: by the name of their file, without its suffix.
        remarks: lines to print below the metrics.
        arrays: one value per image, class or dimension, by name.
    """

    metrics: dict[str, Metric]
    plots: dict[str, RGBImage] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
