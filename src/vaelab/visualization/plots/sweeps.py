"""Charts of a sweep."""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vaelab.visualization.plots.style import PALETTE, RGBImage, new_figure, rendered
from vaelab.visualization.plots.text import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Mapping[float, Sequence[Mapping[str, float]]]  # swept value to the metrics of its runs


def _ticks(axes: "Axes", values: Sequence[float]) -> None:
    """Ticks at the swept values if there are at most 8; a logarithmic axis if they span a factor of 8 or more."""
    swept = sorted(set(values))
    if swept[0] > 0 and swept[-1] / swept[0] >= 8:
        axes.set_xscale("log")
    if len(swept) <= 8:
        axes.set_xticks(swept, [f"{value:g}" for value in swept])
        axes.minorticks_off()


def _axis(term: str, unit: str) -> str:
    return f"{term} ({'nats' if term.endswith('/kl') else unit}, per image)"


def curves_over(name: str, lines: Mapping[str, Points], title: str, terms: Sequence[str], unit: str) -> RGBImage:
    """A panel for each term over one swept setting, with a line for each combination of the other swept settings.

    Several runs at one point, such as different seeds, are shown by their mean and a bar from minimum to maximum.

    Args:
        name: of the setting.
        lines: label to value to the metrics of each run.
        title: the settings that the labels are values of.
        terms: the metrics to plot.
        unit: of the terms.
    """
    lines = {drawable(label): points for label, points in lines.items()}
    values = [value for points in lines.values() for value in points]
    with new_figure(3.6 * len(terms) + (1.2 if len(lines) > 1 else 0), 3.6) as figure:
        for axes, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
            for i, (label, points) in enumerate(lines.items()):
                x = sorted(points)
                runs = [[run[term] for run in points[value]] for value in x]
                means = [statistics.mean(run) for run in runs]
                spread = np.array([[m - min(r), max(r) - m] for m, r in zip(means, runs, strict=True)]).T
                bars = spread if spread.any() else None
                color = PALETTE[i % len(PALETTE)]
                axes.errorbar(x, means, bars, color=color, marker="o", markersize=4, capsize=3, label=label)
            _ticks(axes, values)
            axes.set_xlabel(name)
            axes.set_title(_axis(term, unit), fontsize=10)
        if len(lines) > 1:
            figure.legend(*axes.get_legend_handles_labels(), title=title, loc="outside right center")
        return rendered(figure)


def slices(trials: Mapping[str, Sequence[float | str]], values: Sequence[float], term: str, unit: str) -> RGBImage:
    """A panel for each searched setting, with a point for each trial; later trials are darker.

    Args:
        trials: setting to its value in each trial, in the order of the trials.
        values: the metric of each trial.
        term: the name of the metric.
        unit: of the metric.
    """
    with new_figure(3 * len(trials) + 1, 3.6) as figure:
        panels = figure.subplots(1, len(trials), sharey=True, squeeze=False)[0]
        for axes, (name, tried) in zip(panels, trials.items(), strict=True):
            numbers = [value for value in tried if not isinstance(value, str)]
            if len(numbers) < len(tried):
                names = sorted({str(value) for value in tried})
                numbers = [names.index(str(value)) for value in tried]
                axes.set_xticks(range(len(names)), list(map(drawable, names)))
                axes.set_xlim(-0.5, len(names) - 0.5)
            elif min(numbers) > 0 and max(numbers) / min(numbers) >= 8:
                axes.set_xscale("log")
            shown = axes.scatter(numbers, values, c=range(len(tried)), cmap="viridis_r", s=28)
            best = int(np.argmax(values))
            axes.plot(numbers[best], values[best], "o", markersize=10, fillstyle="none", color=PALETTE[2])
            axes.set_xlabel(name)
        # The worst trials are far below the rest, and would squeeze the rest into one line.
        low = np.quantile(values, 0.2)
        panels[0].set_ylim(max(min(values), low - (max(values) - low)) - 0.05 * (max(values) - low))
        panels[0].set_ylabel(_axis(term, unit))
        figure.colorbar(shown, ax=panels, label="trial")
        return rendered(figure)


def heat_map(down: str, across: str, cells: Mapping[tuple[float, float], Sequence[float]], label: str) -> RGBImage:
    """A metric over two swept settings, as the mean of the runs of a cell; a frame marks the highest value.

    Args:
        down, across: names of the settings.
        cells: (value of ``down``, value of ``across``) to the metric of each run.
        label: of the metric, with its unit.
    """
    rows, columns = (sorted({key[i] for key in cells}) for i in (0, 1))
    values = np.full((len(rows), len(columns)), np.nan)
    for (row, column), runs in cells.items():
        values[rows.index(row), columns.index(column)] = statistics.mean(runs)
    with new_figure(1.1 * len(columns) + 2, 0.7 * len(rows) + 1.4) as figure:
        axes = figure.subplots()
        shown = axes.imshow(values, cmap="viridis", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="w" if value < middle else "k")
        i, j = np.unravel_index(np.nanargmax(values), values.shape)
        axes.add_patch(_frame(int(i), int(j)))
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
        axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
        axes.set_xlabel(across)
        axes.set_ylabel(down)
        figure.colorbar(shown, ax=axes, label=label)
        return rendered(figure)


def _frame(row: int, column: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.47), 0.96, 0.94, fill=False, edgecolor=PALETTE[2], linewidth=2.5)


def rate_distortion(
    lines: Mapping[str, Sequence[tuple[str, float, float]]], title: str, along: str, unit: str
) -> RGBImage:
    """Rate and distortion of runs (Alemi et al. 2018, arXiv 1711.00464).

    The ELBO is constant along a dashed line: it is minus the sum of rate and distortion.

    Args:
        lines: label to runs, in the order in which a line joins them. A run is its label, its rate (KL) and its
            distortion (reconstruction).
        title: the settings that the labels of the lines are values of.
        along: the setting that the labels of the points are values of.
        unit: of the distortion.
    """
    from matplotlib.patheffects import withStroke

    lines = {drawable(label): runs for label, runs in lines.items()}
    lowest = min(rate + distortion for runs in lines.values() for _, rate, distortion in runs)
    with new_figure(6.6, 5) as figure:
        axes = figure.subplots()
        for i, (label, runs) in enumerate(lines.items()):
            axes.plot(
                [run[1] for run in runs],
                [run[2] for run in runs],
                "o-",
                color=PALETTE[i % len(PALETTE)],
                markersize=5,
                label=label,
            )
        for runs in lines.values():
            for name, rate, distortion in runs:
                shown, at = drawable(name), (rate, distortion)
                text = axes.annotate(shown, at, xytext=(5, 4), textcoords="offset points", fontsize=8)
                text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        axes.margins(0.08, 0.08)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        step = _round_step((right + high - lowest) / 6)
        for total in np.arange(np.floor((left + low) / step) * step, right + high, step):
            axes.plot([left, right], [total - left, total - right], "--", color="#c8c8c8", linewidth=0.8, zorder=0)
            if low < total - right < high:
                axes.text(right, total - right, f" {-total:g}", fontsize=8, color="#909090", va="center")
            elif left < total - low < right:  # the line leaves the plot at the bottom
                axes.text(total - low, low, f" {-total:g}", fontsize=8, color="#909090", va="bottom")
        axes.set_xlim(left, right)
        axes.set_ylim(low, high)
        axes.grid(False)
        axes.set_xlabel("rate: test/kl (nats per image)")
        axes.set_ylabel(f"distortion: test/reconstruction ({unit}, per image)")
        axes.set_title(f"points: {along}; dashed lines: constant ELBO, value at the end", fontsize=10)
        if len(lines) > 1:
            axes.legend(title=title)
        return rendered(figure)


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 5, 10, ... (times powers of ten) that is at least ``step``."""
    power = 10 ** np.floor(np.log10(step))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step))
