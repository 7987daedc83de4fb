"""Pictures of a trained model: each is a function of a :class:`vaelab.subject.Subject`, drawn in a run or afterwards.

The same ones are entries of ``callbacks.gallery.pictures`` and of ``pictures`` in ``configs/generate.yaml``.
"""

from vaelab.pictures.charts import comparison, errors, latents, losses
from vaelab.pictures.drawn import CannotDraw, Drawn
from vaelab.pictures.images import class_reconstructions, class_samples, reconstructions, samples, timeline
from vaelab.pictures.ways import arithmetic, interpolation, manifold, traversal

__all__ = [
    "CannotDraw",
    "Drawn",
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
