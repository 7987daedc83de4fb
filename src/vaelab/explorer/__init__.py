"""A page in which one moves through the latent space of a trained model."""

from vaelab.explorer.explore import explore

__all__ = ["explore"]
