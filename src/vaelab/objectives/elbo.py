"""The evidence lower bound, and the plain autoencoder to compare it with."""

import torch
from torch import Tensor

from vaelab.models.vae import VAE
from vaelab.objectives.base import Objective
from vaelab.runtime.data_parallel import Shard


class ELBO(Objective):
    r"""The evidence lower bound (Kingma and Welling 2014, arXiv 1312.6114).

    .. math:: \frac1K \sum_{k=1}^K \log p(x|z_k) - \mathrm{KL}(q(z|x) \| p(z)), \qquad z_k \sim q(z|x)

    With the closed form of the divergence it is the paper's estimator B, with its estimate by the samples estimator A.
    """

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        return trace.terms(loss=(trace.reconstruction + trace.kl).mean())


class Autoencoder(Objective):
    r"""A plain autoencoder: the latent code is the posterior's centre, and nothing keeps it near the prior.

    .. math:: \log p(x|z), \qquad z = \mathrm{centre}\, q(z|x)

    For comparison with a variational one: codes reconstruct better, but what lies between them decodes to nothing. The
    reported terms are those of the bound, which this does not maximise: the posterior's scale is never trained.
    """

    trains_variance = False

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        with torch.no_grad():
            trace = self.trace(vae, x, y, shard)
        return trace.terms(loss=-vae.log_likelihood(x, vae.encode(x, y).centre, y, shard).mean())
