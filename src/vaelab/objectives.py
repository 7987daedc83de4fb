r"""Objectives: the bound that is maximised, and the terms that are reported beside it.

An objective is a module with ``forward(vae, x)`` for images x of shape (B, C, H, W). It returns a dictionary of nats
per example, shape (B,), and one scalar:

- ``elbo``: a single number to compare runs by, the evidence lower bound
  :math:`\mathbb{E}_q[\log p(x|z)] - \mathrm{KL}(q(z|x) \| p(z))`, *whatever* is optimised;
- ``reconstruction``: :math:`-\mathbb{E}_q[\log p(x|z)]`;
- ``kl``: :math:`\mathrm{KL}(q(z|x) \| p(z))`, so that ``elbo = -(reconstruction + kl)``;
- ``loss``: the scalar to be minimised, averaged over the batch.

Terms are summed over pixels and latent dimensions. They are nats where the likelihood is normalised for its data
(:meth:`vaelab.likelihoods.Likelihood.is_normalized`); where it is not, they are that loss and nothing more.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from vaelab.vae import VAE


class ELBO(nn.Module):
    r"""The evidence lower bound with the closed form of the KL divergence (arXiv 1312.6114, estimator B).

    .. math:: \frac1K \sum_{k=1}^K \log p(x|z_k) - \mathrm{KL}(q(z|x) \| p(z)), \qquad z_k \sim q(z|x)

    Args:
        samples: K, the number of latent samples per image.

    Raises:
        NotImplementedError: there is no closed form between this posterior and this prior.
    """

    def __init__(self, samples: int = 1) -> None:
        super().__init__()
        if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
            raise ValueError(f"an objective's samples must be a positive integer, not {samples!r}")
        self.samples = samples

    def forward(self, vae: VAE, x: Tensor) -> dict[str, Tensor]:
        """The terms of images (B, C, H, W), see the module's description."""
        q_z, p_z = vae.encode(x), vae.prior()
        z = q_z.rsample(torch.Size((self.samples,)))  # (K, B, latent_dim)
        reconstruction = -vae.decode(z).log_prob(x).mean(0)
        kl = self.divergence(q_z, p_z, z)
        elbo = -(reconstruction + kl)
        return {"loss": -elbo.mean(), "elbo": elbo, "reconstruction": reconstruction, "kl": kl}

    def divergence(self, q_z: Distribution, p_z: Distribution, z: Tensor) -> Tensor:
        """KL(q(z|x) || p(z)) per image, shape (B,), in nats; samples z (K, B, latent_dim) of q are at hand."""
        return kl_divergence(q_z, p_z)


class SampledELBO(ELBO):
    r"""The evidence lower bound with the KL divergence estimated by the same samples (arXiv 1312.6114, estimator A).

    .. math:: \frac1K \sum_{k=1}^K \log p(x|z_k) + \log p(z_k) - \log q(z_k|x), \qquad z_k \sim q(z|x)

    Needs no closed form, so that every posterior goes with every prior; where there is one, it is the same bound with
    more noise. The estimate of the divergence can be negative for a single image.

    Args:
        samples: K, the number of latent samples per image.
    """

    def divergence(self, q_z: Distribution, p_z: Distribution, z: Tensor) -> Tensor:
        return (q_z.log_prob(z) - p_z.log_prob(z)).mean(0)


class Autoencoder(ELBO):
    r"""A plain autoencoder: the latent code is the posterior's mean, and nothing keeps it near the prior.

    .. math:: \log p(x|\mathbb{E}_q[z])

    For comparison with a variational one: codes reconstruct better, but what lies between them decodes to nothing. The
    reported terms are those of the bound, which this does not maximise: the posterior's scale is never trained.

    Args:
        samples: K, the number of latent samples per image in the reported terms.
    """

    def forward(self, vae: VAE, x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            terms = super().forward(vae, x)
        return {**terms, "loss": -vae.decode(vae.encode(x).mean).log_prob(x).mean()}
