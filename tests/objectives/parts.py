"""What tests of objectives need: one of each, and a prior and a posterior of which little is known."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.conftest import LinearDecoder, LinearGaussian
from vaelab import objectives
from vaelab.models.distributions.latents import DiagonalGaussian, Latent, Sizes
from vaelab.models.likelihoods import Likelihood
from vaelab.models.networks.mlp import MLPEncoder
from vaelab.models.posteriors import DiagonalGaussian as GaussianPosterior
from vaelab.models.priors import Encode, StandardNormal
from vaelab.models.vae import VAE
from vaelab.objectives import Objective
from vaelab.runtime.data_parallel import Shard

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "beta": partial(objectives.BetaVAE, beta=3.0),
    "free_bits": partial(objectives.FreeBits, free_nats=0.2),
    "free_bits_total": partial(objectives.FreeBits, free_nats=0.2, per="total"),
    "capacity": partial(objectives.Capacity, capacity=0.5, gamma=10.0),
    "beta_tc": partial(objectives.BetaTCVAE, beta=3.0, alpha=0.5, gamma=2.0),
    "mmd": partial(objectives.MMD, mmd_weight=10.0, kl_weight=0.5),
    "iwae": objectives.IWAE,
    "dreg": objectives.DReG,
}
WARMED_UP = [name for name in OBJECTIVES if name not in ("iwae", "dreg")]


def built(name: str, **settings: Any) -> Objective:
    objective = OBJECTIVES[name](**settings)
    objective.data_size = 100
    return objective


class Unknown(Latent):
    """A Gaussian that says no more of itself than a flow does."""

    def __init__(self, gaussian: DiagonalGaussian) -> None:
        self.gaussian = gaussian
        super().__init__(gaussian.batch_shape, gaussian.event_shape, validate_args=False)

    @property
    def centre(self) -> Tensor:
        return self.gaussian.mean

    def rsample(self, sample_shape: Sizes = (), shard: Shard | None = None) -> Tensor:
        return self.gaussian.rsample(sample_shape, shard)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.gaussian.log_prob(value)


class UnknownPosterior(GaussianPosterior):
    def forward(self, features: Tensor) -> Latent:
        gaussian = super().forward(features)
        assert isinstance(gaussian, DiagonalGaussian)
        return Unknown(gaussian)


class LearnedPrior(nn.Module):
    """A Gaussian with weights of its own, of which nothing is known."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.mean, self.log_std = nn.Parameter(torch.ones(latent_dim)), nn.Parameter(torch.zeros(latent_dim))

    def forward(self, encode: Encode) -> Latent:
        return Unknown(DiagonalGaussian(self.mean, self.log_std))


class EncodedPrior(nn.Module):
    """The posterior of an image that is learned: a VampPrior with a single component."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.randn(1, 1, 3, 2))

    def forward(self, encode: Encode) -> Latent:
        q_z = encode(self.image)
        assert isinstance(q_z, DiagonalGaussian)
        return DiagonalGaussian(q_z.mean[0], q_z.log_std[0])


def linear_vae(
    prior: Callable[..., nn.Module] = StandardNormal,
    posterior: Callable[..., nn.Module] = GaussianPosterior,
    likelihood: Likelihood | None = None,
) -> VAE:
    """A VAE of images (1, 3, 2) and two latent dimensions, all of whose networks are linear."""
    encoder = partial(MLPEncoder, hidden_sizes=[])
    return VAE((1, 3, 2), 2, encoder, LinearDecoder, likelihood or LinearGaussian(0.7), prior, posterior)
