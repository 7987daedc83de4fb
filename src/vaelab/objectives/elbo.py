"""The evidence lower bound, and a plain autoencoder for comparison."""

import torch
from torch import Tensor

from vaelab.models.vae import VAE
from vaelab.objectives.base import Objective
from vaelab.runtime.data_parallel import Shard


class ELBO(Objective):
    r"""The evidence lower bound (Kingma and Welling 2014, arXiv 1312.6114).

    .. math:: \frac1K \sum_{k=1}^K \log p(x|z_k) - \mathrm{KL}(q(z|x) \| p(z)), \qquad z_k \sim q(z|x)

    With ``divergence="analytic"`` this is estimator B of the paper; with ``sampled`` it is estimator A.
    """

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        return trace.terms(loss=(trace.reconstruction + trace.kl).mean())


class Autoencoder(Objective):
    r"""A plain autoencoder: the latent code is the centre of the posterior, and the loss has no divergence.

    .. math:: \log p(x|z), \qquad z = \mathrm{centre}\, q(z|x)

    For comparison with a VAE: it reconstructs better, but latents between the codes do not decode to sensible images.
    The reported terms are those of the evidence lower bound, which is not maximised here. The variance of the posterior
    is not trained.
    """

    trains_variance = False

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        with torch.no_grad():
            trace = self.trace(vae, x, y, shard)
        return trace.terms(loss=-vae.log_likelihood(x, vae.encode(x, y).centre, y, shard).mean())
