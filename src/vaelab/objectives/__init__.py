r"""Objectives: the bound that is maximised, and the terms that are reported beside it.

An objective is a module with ``forward(vae, x, y)`` for images x of shape (B, C, H, W) and their labels y, which only a
conditional VAE looks at. It returns a dictionary of nats per example, shape (B,), and one scalar:

- ``elbo``: a single number to compare runs by, the evidence lower bound
  :math:`\mathbb{E}_q[\log p(x|z)] - \mathrm{KL}(q(z|x) \| p(z))`, *whatever* is optimised;
- ``reconstruction``: :math:`-\mathbb{E}_q[\log p(x|z)]`;
- ``kl``: :math:`\mathrm{KL}(q(z|x) \| p(z))`, so that ``elbo = -(reconstruction + kl)``;
- ``loss``: the scalar to be minimised, averaged over the batch.

Some add terms of their own, which are logged like these: figures of each image, shape (B,), or of the batch, a scalar.
Terms are summed over pixels and latent dimensions. They are nats where the likelihood is normalised for its data
(:meth:`vaelab.models.likelihoods.Likelihood.is_normalized`); where it is not, they are that loss and nothing more.
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
