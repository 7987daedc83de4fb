"""Charts of one model: latent space, errors, losses. And samples and codes of two models side by side."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from vaelab.visualization.plots.grids import image_grid
from vaelab.visualization.plots.latent_paths import pca
from vaelab.visualization.plots.style import (
    PALETTE,
    SPLIT_COLOURS,
    RGBImage,
    new_figure,
    rendered,
    show_grid,
    spread_texts,
)
from vaelab.visualization.plots.text import drawable, drawable_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[Sequence[float], Sequence[float]]  # steps, values


def latent_scatter(means: Tensor, log_variances: Tensor | None, labels: Tensor, classes: Sequence[str]) -> RGBImage:
    """A scatter plot of posterior means, and one of posterior log-variances, coloured by class.

    Two dimensions are the axes. More dimensions are projected onto their first two principal components. A single
    dimension has the class as its second axis.

    Args:
        means: (N, D).
        log_variances: (N, D), or ``None`` to plot the means only.
        labels: (N,), classes from 0.
        classes: their names; fewer than two give one colour.
    """
    classes = drawable_classes(classes)
    panels = [("latent codes" if log_variances is None else "posterior means", means, "z_{}")]
    if log_variances is not None:
        panels.append(("posterior log-variances", log_variances, r"\log\,\sigma_{}^2"))
    with new_figure(6.2 * len(panels) + 1.2, 5.8) as figure:
        rows = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, points, symbol) in zip(rows, panels, strict=True):
            _scatter(axes, name, points, symbol, labels, classes)
        _class_bar(figure, list(rows), classes)
        figure.suptitle(f"Latent space of {len(means):,} test images")
        spread_texts(figure)
        return rendered(figure)


def error_histogram(errors: Tensor) -> RGBImage:
    """A histogram of mean squared reconstruction errors, (N,)."""
    values = errors.detach().float().cpu().numpy()
    with new_figure(7.5, 4.6) as figure:
        axes = figure.subplots()
        axes.hist(values, bins=min(60, max(5, len(values) // 10)), color=PALETTE[0], edgecolor="white", linewidth=0.4)
        for name, value, line in (("mean", values.mean(), "-"), ("median", np.median(values), "--")):
            axes.axvline(value, color="black", linestyle=line, linewidth=1.2, label=f"{name} {value:#.3g}")
        axes.set_xlim(left=0)
        axes.set_xlabel("mean squared error per pixel (black 0, white 1)")
        axes.set_ylabel("images")
        axes.set_title(f"Reconstruction errors of {len(values):,} test images")
        axes.legend()
        return rendered(figure)


def loss_curves(
    curves: Mapping[str, Mapping[str, Curve]], steps_per_epoch: float | None, units: Mapping[str, str]
) -> RGBImage:
    """A panel for each term: training and validation values over steps, with epochs on a second axis.

    Args:
        curves: term to split to (steps, values).
        steps_per_epoch: optimiser steps; ``None`` for no axis of epochs.
        units: of a term's values.
    """
    with new_figure(5.2 * len(curves), 4.6) as figure:
        for axes, (term, splits) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
            for split, (steps, values) in splits.items():
                marker = "o" if len(steps) <= 30 else ""
                axes.plot(steps, values, color=SPLIT_COLOURS[split], marker=marker, markersize=3.5, label=split)
            axes.set_xlim(left=0)
            _hide_first_values(axes, splits.values())
            axes.set_title(term)
            axes.set_xlabel("steps")
            axes.set_ylabel(f"{term} ({units[term]})")
            axes.xaxis.get_major_locator().set_params(integer=True)
            if steps_per_epoch is not None:
                per = steps_per_epoch
                top = axes.secondary_xaxis("top", functions=(lambda x, per=per: x / per, lambda x, per=per: x * per))
                top.set_xlabel("epochs")
                top.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
        return rendered(figure)


def compare(
    titles: Sequence[str], samples: Sequence[Tensor], codes: Sequence[Tensor], labels: Tensor, classes: Sequence[str]
) -> RGBImage:
    """Models side by side: a column for each, with samples above latent codes of the same images.

    Args:
        titles: of the models.
        samples: of each model, (N, C, H, W).
        codes: of each model, (M, D).
        labels: (M,), classes from 0, of the encoded images.
        classes: their names.
    """
    titles, classes = list(map(drawable, titles)), drawable_classes(classes)
    with new_figure(6.0 * len(titles) + 1.2, 11) as figure:
        above, below = figure.subplots(2, len(titles), squeeze=False)
        for i, title in enumerate(titles):
            grid = image_grid(samples[i])
            show_grid(above[i], grid)
            above[i].set_title(f"{title}: samples")
            _scatter(below[i], f"{title}: latent codes", codes[i], "z_{}", labels, classes)
        _class_bar(figure, list(below), classes)
        spread_texts(figure)
        return rendered(figure)


def _scatter(axes: "Axes", name: str, points: Tensor, symbol: str, labels: Tensor, classes: Sequence[str]) -> None:
    """One panel of points (N, D); ``symbol`` names a dimension, with {} for its number."""
    points = points.detach().float().cpu()
    # Points are painted in a random order, because the last class would hide the others.
    rng = np.random.default_rng(0)
    order = rng.permutation(len(points))
    codes = labels.cpu().numpy()[order]
    names = [f"${symbol.format(i)}$" for i in (1, 2)]
    if points.shape[1] > 2:
        points, explained = pca(points)
        names = [f"component {i + 1} ({part:.0%} of the variance)" for i, part in enumerate(explained.tolist())]
    x = points[:, 0].numpy()[order]
    if points.shape[1] == 1:
        y, names[1] = codes + rng.uniform(-0.35, 0.35, len(codes)), "class"
    else:
        y = points[:, 1].numpy()[order]
        axes.set_aspect("equal", adjustable="datalim")
    colors: dict[str, Any] = {"color": PALETTE[0]}
    if len(classes) > 1:
        colors = {"c": codes, "cmap": _class_colors(len(classes)), "vmin": -0.5, "vmax": len(classes) - 0.5}
    axes.scatter(x, y, s=float(np.clip(40_000 / max(len(x), 1), 5, 25)), linewidths=0, alpha=0.8, **colors)
    if 1 < len(classes) <= len(PALETTE) and points.shape[1] > 1:
        for code in np.unique(codes):  # ten colours are hard to distinguish
            centre = np.median(x[codes == code]), np.median(y[codes == code])
            text = axes.text(*centre, classes[code], ha="center", va="center", weight="bold", in_layout=False)
            text.set_path_effects([_outline()])
    axes.set_title(name)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])


def _outline() -> Any:
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=3, foreground="white")


def _class_bar(figure: "Figure", axes: Sequence["Axes"], classes: Sequence[str]) -> None:
    """A colour bar with at most 25 names of classes."""
    if len(classes) < 2:
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(-0.5, len(classes) - 0.5), _class_colors(len(classes)))
    bar = figure.colorbar(scale, ax=axes, aspect=30, pad=0.02)
    ticks = range(0, len(classes), math.ceil(len(classes) / 25))
    bar.set_ticks(list(ticks), labels=[classes[i] for i in ticks])
    bar.ax.tick_params(length=0)
    bar.ax.grid(False)


def _class_colors(count: int) -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    if count <= len(PALETTE):
        return ListedColormap(PALETTE[:count])
    return colormaps["turbo"].resampled(count)


def _hide_first_values(axes: "Axes", curves: Iterable[Curve]) -> None:
    """Limits the y axis to later values if the first ones are so high that they would flatten the curve."""
    values = np.concatenate([np.asarray(curve[1], float) for curve in curves])
    values = values[np.isfinite(values)]
    if len(values) >= 6:
        low, typical, high = np.quantile(values, (0, 0.9, 1), method="lower")
        if high - low > 4 * (typical - low) > 0:
            axes.set_ylim(low - 0.1 * (typical - low), low + 2 * (typical - low))
