"""The style of all charts, and a Matplotlib figure as an array of pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vaelab.visualization.plots.text import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RGBImage = np.ndarray

# Ten colours that colour-blind people can distinguish: Petroff (2021), arXiv 2107.02270.
PALETTE = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
SPLIT_COLOURS = {"train": PALETTE[0], "val": PALETTE[6], "test": PALETTE[4]}
DPI = 110
_STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "figure.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "figure.facecolor": "white",
    "legend.frameon": False,
}


@contextmanager
def new_figure(width: float, height: float, layout: str | None = "constrained") -> Iterator["Figure"]:
    """A Matplotlib figure with this size in inches; the common style applies inside the context."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style = {**_STYLE, "font.family": families}
    with rc_context(style):  # type: ignore[arg-type]  # names are literals there
        yield Figure(figsize=(width, height), dpi=DPI, layout=layout)  # type: ignore[arg-type]


def rendered(figure: "Figure") -> RGBImage:
    """The pixels of a Matplotlib figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def spread(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Boxes (N, 4), as left, bottom, right and top, moved up or down a little so that none overlap."""
    boxes = boxes.copy()
    for _ in range(200):
        is_crowded = False
        for i, j in combinations(range(len(boxes)), 2):
            overlap = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
            if (overlap > 0.01).all():
                is_crowded = True
                up = overlap[1] / 2 if boxes[i, 1] + boxes[i, 3] >= boxes[j, 1] + boxes[j, 3] else -overlap[1] / 2
                boxes[i, 1::2] += up
                boxes[j, 1::2] -= up
        if not is_crowded:
            break
    return boxes


def spread_texts(figure: "Figure") -> None:
    """Moves texts inside the axes apart; call it after everything else is in its place."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    texts = [(axes, list(axes.texts)) for axes in figure.axes if axes.texts]
    if not texts:
        return
    FigureCanvasAgg(figure).draw()  # this sets positions and sizes
    for axes, inner_texts in texts:
        boxes = spread(np.array([text.get_window_extent().extents for text in inner_texts]))
        for text, (left, bottom, right, top) in zip(inner_texts, boxes, strict=True):
            x, y = axes.transData.inverted().transform(((left + right) / 2, (bottom + top) / 2))
            text.set_position((x, y))


def show_grid(axes: "Axes", grid: RGBImage) -> None:
    """Shows a grid of images on axes whose labels are above and at the left."""
    axes.imshow(grid, interpolation="nearest")
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
