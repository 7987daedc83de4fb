"""The gallery: plots and images of a trained model, made after a training or later.

Each is a function of a :class:`vaelab.runs.trained_model.TrainedModel`. ``callbacks.gallery.pictures`` and ``pictures``
in ``configs/generate.yaml`` select the functions and their arguments.
"""

from vaelab.visualization.gallery.charts import comparison, errors, latents, losses
from vaelab.visualization.gallery.gallery_image import GalleryImage
from vaelab.visualization.gallery.samples import (
    class_reconstructions,
    class_samples,
    reconstructions,
    samples,
    timeline,
)
from vaelab.visualization.gallery.traversals import arithmetic, interpolation, manifold, traversal

__all__ = [
    "GalleryImage",
    "arithmetic",
    "class_reconstructions",
    "class_samples",
    "comparison",
    "errors",
    "interpolation",
    "latents",
    "losses",
    "manifold",
    "reconstructions",
    "samples",
    "timeline",
    "traversal",
]
