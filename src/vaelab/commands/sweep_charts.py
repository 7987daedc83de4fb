"""The charts of a sweep, chosen by what it varies."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vaelab.runs.ranked_table import number_of
from vaelab.runs.sweep_folder import TERMS, Job, short_names, shortened

if TYPE_CHECKING:
    from vaelab.visualization.plots import RGBImage

_NAMES = ("slices", "curves", "heat_map", "rate_distortion")
MOST_LINES = 8  # in a chart of curves
# Settings that trade the rate (KL) for the distortion (reconstruction).
_RATES = ("latent_dim", "beta", "capacity", "free_nats", "kl_weight", "mmd_weight")


def write_charts(jobs: Sequence[Job], names: Sequence[str], folder: Path) -> list[str]:
    """Writes the charts that fit this sweep.

    Args:
        jobs: of the sweep.
        names: of the settings that differ between jobs.
        folder: of the PNG files.

    Returns:
        The names of the files; none if fewer than two jobs are complete, or their metrics cannot be compared.
    """
    for name in _NAMES:  # of an earlier attempt, which perhaps could compare its jobs
        (folder / f"{name}.png").unlink(missing_ok=True)
    complete = [job for job in jobs if all(isinstance(job.metrics.get(term), float) for term in TERMS)]
    if len({job.kind for job in complete}) != 1 or len(complete) < 2:
        return []
    from vaelab.visualization.plots import save_png  # here, because Matplotlib takes a second

    charts = _Charts(complete, names).draw()
    for name, image in charts.items():
        save_png(image, folder / f"{name}.png")
    return [f"{name}.png" for name in charts]


class _Charts:
    """The charts of the complete jobs of a sweep.

    Attributes:
        jobs: complete, with comparable metrics.
        varied: settings that differ between these jobs, except the seed.
        numeric: those of them whose values are numbers.
        axis: the numeric setting with the most values; empty if there is none.
    """

    def __init__(self, jobs: Sequence[Job], names: Sequence[str]) -> None:
        self.jobs = jobs
        self.short = short_names(names)
        self.unit = jobs[0].metrics["unit"]
        self.varied = [name for name in names if name != "seed" and self._count(name) > 1]
        self.numeric = [
            name for name in self.varied if all(number_of(job.overrides.get(name)) is not None for job in jobs)
        ]
        self.axis = max(self.numeric, key=self._count, default="")

    def draw(self) -> dict[str, "RGBImage"]:
        """The charts by name."""
        charts = {}
        is_search = self._is_search()
        if is_search:
            charts["slices"] = self._slices()
        elif self.axis:
            charts["curves"] = self._curves()
            if len(self.numeric) == 2:
                charts["heat_map"] = self._heat_map()
        rates = [name for name in self.numeric if name.rpartition(".")[2] in _RATES]
        if rates and not is_search:
            # Latent dimensions change the model as well: another setting is preferred.
            charts["rate_distortion"] = self._rate_distortion(min(rates, key=lambda name: name == "latent_dim"))
        return charts

    def _is_search(self) -> bool:
        """Whether the jobs are samples of a space, and no grid.

        A grid has most of its combinations. A search has few of them, and never repeats a number.
        """
        if not self.axis:
            return False
        combinations = math.prod(map(self._count, self.varied))
        is_drawn = len(self.varied) > 1 and len(self.jobs) == self._count(self.axis) > 2
        return combinations > 2 * len(self.jobs) or is_drawn or len(self._lines(self.axis)) > MOST_LINES

    def _slices(self) -> "RGBImage":
        """The validation ELBO over each setting, in the order of the trials."""
        from vaelab.visualization import plots

        trials = sorted(self.jobs, key=lambda job: job.number)
        values: dict[str, Sequence[float | str]] = {}
        for name in self.varied:
            texts = [job.overrides.get(name, "") for job in trials]
            values[self.short[name]] = list(map(float, texts)) if name in self.numeric else texts
        return plots.slices(values, [job.metrics["val/elbo"] for job in trials], "val/elbo", self.unit)

    def _curves(self) -> "RGBImage":
        """Each term over the axis, a line for each combination of the other settings."""
        from vaelab.visualization import plots

        lines = {
            label: {x: [{term: job.metrics[term] for term in TERMS} for job in jobs] for x, jobs in points.items()}
            for label, points in self._lines(self.axis).items()
        }
        return plots.curves_over(self.short[self.axis], lines, self._title(self.axis), TERMS, self.unit)

    def _heat_map(self) -> "RGBImage":
        """The test ELBO over two numeric settings."""
        from vaelab.visualization import plots

        down, across = self.numeric
        cells: dict[tuple[float, float], list[float]] = {}
        for job in self.jobs:
            place = float(job.overrides[down]), float(job.overrides[across])
            cells.setdefault(place, []).append(job.metrics["test/elbo"])
        return plots.heat_map(self.short[down], self.short[across], cells, f"test/elbo ({self.unit}, per image)")

    def _rate_distortion(self, axis: str) -> "RGBImage":
        """The distortion over the rate; a line joins the points along this setting."""
        from vaelab.visualization import plots

        lines = {
            label: [
                (f"{x:g}", job.metrics["test/kl"], job.metrics["test/reconstruction"])
                for x, jobs in points.items()
                for job in jobs
            ]
            for label, points in self._lines(axis).items()
        }
        return plots.rate_distortion(lines, self._title(axis), self.short[axis], self.unit)

    def _lines(self, axis: str) -> dict[str, dict[float, list[Job]]]:
        """The jobs by the values of the other settings, and by the value of this one."""
        others = [name for name in self.varied if name != axis]
        lines: dict[str, dict[float, list[Job]]] = {}
        for job in sorted(self.jobs, key=lambda job: [_sort_key(job.overrides.get(name)) for name in [*others, axis]]):
            label = " ".join(shortened(job.overrides.get(name, "")) for name in others)
            lines.setdefault(label, {}).setdefault(float(job.overrides[axis]), []).append(job)
        return lines

    def _title(self, axis: str) -> str:
        """The names of the other settings."""
        return " ".join(self.short[name] for name in self.varied if name != axis)

    def _count(self, name: str) -> int:
        """The number of values of a setting."""
        return len({job.overrides.get(name) for job in self.jobs})


def _sort_key(text: str | None) -> tuple[float, str]:
    number = number_of(text)
    return (0.0, text or "") if number is None else (number, "")
