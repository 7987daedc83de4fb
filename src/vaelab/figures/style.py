"""What all charts look like, and how one becomes a picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = np.ndarray

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


def rendered(figure: "Figure") -> Picture:
    """The pixels of a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def show_grid(axes: "Axes", grid: Picture) -> None:
    """A grid on axes that have names above and beside it, or none."""
    axes.imshow(grid, interpolation="nearest")
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
