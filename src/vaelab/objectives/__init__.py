r"""Objectives: each computes the loss to be minimised, and the terms of the evidence lower bound.

An objective is a module with ``forward(vae, x, y)`` for images x of shape (B, C, H, W) and their labels y. Only a
conditional VAE uses the labels. It returns a dictionary of terms per example, shape (B,), and one scalar:

- ``elbo``: the evidence lower bound :math:`\mathbb{E}_q[\log p(x|z)] - \mathrm{KL}(q(z|x) \| p(z))`. Every objective
  reports it, so that runs with different objectives can be compared;
- ``reconstruction``: :math:`-\mathbb{E}_q[\log p(x|z)]`;
- ``kl``: :math:`\mathrm{KL}(q(z|x) \| p(z))`, so that ``elbo = -(reconstruction + kl)``;
- ``loss``: the scalar to be minimised, averaged over the batch.

Some objectives add terms of their own, per image, shape (B,), or per batch, a scalar. These are logged too. Terms are
sums over pixels and latent dimensions. They are in nats if the likelihood is normalised for its data
(:meth:`vaelab.models.likelihoods.Likelihood.is_normalized`). Otherwise ``reconstruction`` and ``elbo`` have no unit.
"""

from vaelab.objectives.aggregate import MMD, BetaTCVAE
from vaelab.objectives.base import Objective, Trace
from vaelab.objectives.elbo import ELBO, Autoencoder
from vaelab.objectives.importance import IWAE, DReG
from vaelab.objectives.warmup import Warmup
from vaelab.objectives.weighted import BetaVAE, Capacity, FreeBits

__all__ = [
    "ELBO",
    "IWAE",
    "MMD",
    "Autoencoder",
    "BetaTCVAE",
    "BetaVAE",
    "Capacity",
    "DReG",
    "FreeBits",
    "Objective",
    "Trace",
    "Warmup",
]
