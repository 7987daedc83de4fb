"""What all charts look like, and how one becomes a picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RGBImage = np.ndarray

# Ten colours that stay apart for the colour-blind: Petroff (2021), arXiv 2107.02270.
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
    """A figure of so many inches, in the common style as long as the context lasts."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):  # type: ignore[arg-type]  # names are literals there
        yield Figure(figsize=(width, height), dpi=DPI, layout=layout)  # type: ignore[arg-type]


def rendered(figure: "Figure") -> RGBImage:
    """The pixels of a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def spread(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Boxes (N, 4), as left, bottom, right and top, moved up and down as little as lets none lie upon another."""
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
    """Moves texts within axes apart, once everything else is in its place."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    texts = [(axes, list(axes.texts)) for axes in figure.axes if axes.texts]
    if not texts:
        return
    FigureCanvasAgg(figure).draw()  # which decides where everything is, and how large
    for axes, inside in texts:
        boxes = spread(np.array([text.get_window_extent().extents for text in inside]))
        for text, (left, bottom, right, top) in zip(inside, boxes, strict=True):
            x, y = axes.transData.inverted().transform(((left + right) / 2, (bottom + top) / 2))
            text.set_position((x, y))


def show_grid(axes: "Axes", grid: RGBImage) -> None:
    """A grid on axes that have names above and beside it, or none."""
    axes.imshow(grid, interpolation="nearest")
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
