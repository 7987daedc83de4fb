"""Plots as functions of arrays, for callbacks, the evaluation and the generation of images.

Images are floats in [0, 1], shape (N, C, H, W), with one or three channels. A plot is a uint8 array (height, width, 3).
Grids are made of the pixels of the images. Matplotlib makes labels and charts: it is imported for the first of them,
because that takes a second, and its global state does not change.
"""

from vaelab.visualization.plots.charts import compare, error_histogram, latent_scatter, loss_curves
from vaelab.visualization.plots.evaluation import convergence, dimension_bars
from vaelab.visualization.plots.files import save_gif, save_png
from vaelab.visualization.plots.grids import (
    BACKGROUND,
    at_most,
    captioned,
    class_reconstructions,
    image_grid,
    labelled_grid,
    manifold_grid,
    reconstruction_grid,
    sprite_sheet,
    to_bytes,
)
from vaelab.visualization.plots.latent_paths import manifold_latents, pca, straight_path
from vaelab.visualization.plots.style import RGBImage
from vaelab.visualization.plots.sweeps import curves_over, heat_map, rate_distortion, slices
from vaelab.visualization.plots.text import drawable, drawable_classes

__all__ = [
    "BACKGROUND",
    "RGBImage",
    "at_most",
    "captioned",
    "class_reconstructions",
    "compare",
    "convergence",
    "curves_over",
    "dimension_bars",
    "drawable",
    "drawable_classes",
    "error_histogram",
    "heat_map",
    "image_grid",
    "labelled_grid",
    "latent_scatter",
    "loss_curves",
    "manifold_grid",
    "manifold_latents",
    "pca",
    "rate_distortion",
    "reconstruction_grid",
    "save_gif",
    "save_png",
    "slices",
    "sprite_sheet",
    "straight_path",
    "to_bytes",
]
