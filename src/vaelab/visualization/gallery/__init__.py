"""Pictures of a trained model: each is a function of a :class:`vaelab.runs.trained_model.TrainedModel`, drawn in a run or afterwards.

The same ones are entries of ``callbacks.gallery.pictures`` and of ``pictures`` in ``configs/generate.yaml``.
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
