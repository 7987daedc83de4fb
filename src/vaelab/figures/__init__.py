"""Pictures as functions of arrays: the same ones are drawn by callbacks, evaluation and generation.

Images come in as floats in [0, 1], shape (N, C, H, W), with one or three channels; a picture is a uint8 array
(height, width, 3). Grids are the images' own pixels; names and charts are drawn by Matplotlib, which is imported when
the first is drawn and whose global state is left alone.
"""

from vaelab.figures.charts import compare, error_histogram, latent_scatter, loss_curves
from vaelab.figures.files import save_gif, save_png
from vaelab.figures.grids import (
    at_most,
    captioned,
    class_reconstructions,
    image_grid,
    labelled_grid,
    manifold,
    reconstruction_grid,
)
from vaelab.figures.latents import manifold_latents, pca, straight_path
from vaelab.figures.measures import convergence, dimension_bars
from vaelab.figures.style import Picture
from vaelab.figures.sweeps import curves_over, heat_map, rate_distortion, slices

__all__ = [
    "Picture",
    "at_most",
    "captioned",
    "class_reconstructions",
    "compare",
    "convergence",
    "curves_over",
    "dimension_bars",
    "error_histogram",
    "heat_map",
    "image_grid",
    "labelled_grid",
    "latent_scatter",
    "loss_curves",
    "manifold",
    "manifold_latents",
    "pca",
    "rate_distortion",
    "reconstruction_grid",
    "save_gif",
    "save_png",
    "slices",
    "straight_path",
]
