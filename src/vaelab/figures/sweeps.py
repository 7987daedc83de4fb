"""Charts of several trainings: what a sweep shows."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from vaelab.figures.style import PALETTE, Picture, new_figure, rendered

Points = Mapping[float, Sequence[Mapping[str, float]]]  # the swept value to the figures of the runs that had it


def _is_logarithmic(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= 8


def curves_over(name: str, lines: Mapping[str, Points], terms: Sequence[str], unit: str) -> Picture:
    """A panel for each term over one swept number, a line for each combination of whatever else was swept.

    Several runs at one point, as of different seeds, are their mean with a bar from the lowest to the highest.

    Args:
        name: of the number.
        lines: label to value to the figures of each run.
        terms: which of these figures.
        unit: of the terms.
    """
    values = [value for points in lines.values() for value in points]
    with new_figure(4.4 * len(terms), 4.2) as figure:
        for axes, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
            for i, (label, points) in enumerate(lines.items()):
                x = sorted(points)
                runs = [[run[term] for run in points[value]] for value in x]
                means = [statistics.mean(run) for run in runs]
                spread = np.array([[m - min(r), max(r) - m] for m, r in zip(means, runs, strict=True)]).T
                bars = spread if spread.any() else None
                color = PALETTE[i % len(PALETTE)]
                axes.errorbar(x, means, bars, color=color, marker="o", markersize=4, capsize=3, label=label or None)
            if _is_logarithmic(values):
                axes.set_xscale("log")
                axes.set_xticks(sorted(set(values)), [f"{value:g}" for value in sorted(set(values))])
                axes.minorticks_off()
            axes.set_title(term)
            axes.set_xlabel(name)
            axes.set_ylabel(f"{term} ({'nats' if term.endswith('/kl') else unit}, per image)")
            if len(lines) > 1:
                axes.legend()
        return rendered(figure)


def heat_map(down: str, across: str, cells: Mapping[tuple[float, float], Sequence[float]], label: str) -> Picture:
    """One figure over two swept numbers, its mean where several runs share a cell.

    Args:
        down, across: names of the numbers.
        cells: the two values to the figures of each run.
        label: of the figure, with its unit.
    """
    rows, columns = (sorted({key[i] for key in cells}) for i in (0, 1))
    values = np.full((len(rows), len(columns)), np.nan)
    for (row, column), runs in cells.items():
        values[rows.index(row), columns.index(column)] = statistics.mean(runs)
    with new_figure(1.3 * len(columns) + 3, 0.9 * len(rows) + 2) as figure:
        axes = figure.subplots()
        shown = axes.imshow(values, cmap="viridis", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="w" if value < middle else "k")
        axes.grid(False)
        axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
        axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
        axes.set_xlabel(across)
        axes.set_ylabel(down)
        figure.colorbar(shown, ax=axes, label=label)
        return rendered(figure)


def rate_distortion(points: Sequence[tuple[str, float, float]], unit: str) -> Picture:
    """Runs by what their latents say and how well they reconstruct (Alemi et al. 2018, arXiv 1711.00464).

    Dashed lines are of equal ELBO: rate and distortion add up to its negative.

    Args:
        points: label, rate (KL), distortion (reconstruction). Of several with one label, one is labelled.
        unit: of the distortion.
    """
    rates, distortions = ([point[i] for point in points] for i in (1, 2))
    with new_figure(7, 5.4) as figure:
        axes = figure.subplots()
        axes.plot(rates, distortions, "o", color=PALETTE[0])
        for label, (rate, distortion) in {label: where for label, *where in points}.items():
            axes.annotate(label, (rate, distortion), xytext=(6, 5), textcoords="offset points", fontsize=9)
        axes.margins(0.12, 0.1)
        left, right = axes.get_xlim()
        low, high = axes.get_ylim()
        for total in np.linspace(left + low, right + high, 9)[1:-1]:
            axes.plot([left, right], [total - left, total - right], "--", color="#c0c0c0", linewidth=0.8, zorder=0)
        axes.set_xlim(left, right)
        axes.set_ylim(low, high)
        axes.set_xlabel("rate: test/kl (nats per image)")
        axes.set_ylabel(f"distortion: test/reconstruction ({unit}, per image)")
        axes.set_title("rate and distortion; dashed: equal ELBO")
        return rendered(figure)
