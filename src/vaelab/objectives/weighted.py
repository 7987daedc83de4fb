"""Objectives that change the weight of the KL divergence from the prior, or penalise a function of it."""

from typing import Literal

from torch import Tensor

from vaelab.models.distributions.latents import DiagonalGaussian, dimension_kls
from vaelab.models.vae import VAE
from vaelab.objectives.base import Trace
from vaelab.objectives.warmup import AnnealedObjective, Warmup
from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.validation import NonNegativeNumber, PositiveInt, checked


class BetaVAE(AnnealedObjective):
    r"""The beta-VAE (Higgins et al. 2017, ICLR, openreview Sy2fzU9gl): the bound with a weighted divergence.

    .. math:: \mathbb{E}_q[\log p(x|z)] - \beta\, \mathrm{KL}(q(z|x) \| p(z))

    Args:
        beta: weight of the divergence. Above 1 the latents become more independent, below 1 the reconstructions
            sharper. 1 is the evidence lower bound, to which a warm-up can be added.
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: raises beta from 0 to its value.
    """

    @checked
    def __init__(
        self,
        beta: NonNegativeNumber = 4.0,
        samples: PositiveInt = 1,
        divergence: Literal["analytic", "sampled"] = "analytic",
        warmup: Warmup | None = None,
    ) -> None:
        super().__init__(samples, divergence, warmup)
        self.beta = beta

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        return trace.terms(loss=(trace.reconstruction + self.beta * self.warmup_factor() * trace.kl).mean())


class FreeBits(AnnealedObjective):
    r"""Free bits (Kingma et al. 2016, arXiv 1606.04934, appendix C.8): a small divergence is not penalised.

    .. math::
        \mathbb{E}_{x \in \mathcal M} \mathbb{E}_q[\log p(x|z)] -
        \sum_j \max\bigl(\lambda, \mathbb{E}_{x \in \mathcal M} \mathrm{KL}(q(z_j|x) \| p(z_j))\bigr)

    The expectation over the minibatch :math:`\mathcal M` is inside the maximum, so images may use a dimension
    differently.

    Args:
        free_nats: :math:`\lambda`, nats per latent dimension.
        per: where the maximum is taken. ``dimension``: for each dimension, by the closed form between Gaussians with
            diagonal covariance, for any ``divergence``. ``total``: for the sum over dimensions, with the limit
            ``latent_dim * free_nats``. This allows any posterior and prior, but can leave dimensions unused.
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: raises the weight of the penalty from 0 to 1.

    Raises:
        NotImplementedError: ``per`` is ``dimension``, and a distribution is no Gaussian with diagonal covariance.
    """

    @checked
    def __init__(
        self,
        free_nats: NonNegativeNumber = 0.25,
        per: Literal["dimension", "total"] = "dimension",
        samples: PositiveInt = 1,
        divergence: Literal["analytic", "sampled"] = "analytic",
        warmup: Warmup | None = None,
    ) -> None:
        super().__init__(samples, divergence, warmup)
        self.free_nats, self.per = free_nats, per

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        if self.per == "dimension":
            penalised = trace.shard.mean(self._kl_per_dimension(trace).mean(0)).clamp(min=self.free_nats).sum()
        else:
            penalised = trace.shard.mean(trace.kl.mean()).clamp(min=self.free_nats * vae.latent_dim)
        return trace.terms(loss=trace.reconstruction.mean() + self.warmup_factor() * penalised)

    @staticmethod
    def _kl_per_dimension(trace: Trace) -> Tensor:
        """KL(q(z_j|x) || p(z_j)), (B, latent_dim)."""
        # With a full covariance the sum over dimensions is less than the KL, so free_nats=0 would not be the ELBO.
        kls = dimension_kls(trace.q_z, trace.p_z) if isinstance(trace.q_z, DiagonalGaussian) else None
        if kls is None:
            raise NotImplementedError(
                "only Gaussians with diagonal covariance have a divergence for each latent dimension, as posterior and "
                "as prior: type module.objective.per=total"
            )
        return kls


class Capacity(AnnealedObjective):
    r"""The capacity-controlled beta-VAE (Burgess et al. 2018, arXiv 1804.03599): the loss pulls the KL to a value C.

    .. math:: \mathbb{E}_q[\log p(x|z)] - \gamma\, \bigl|\mathrm{KL}(q(z|x) \| p(z)) - C\bigr|

    The KL divergence is averaged over the batch, so single images may have more or less than C.

    Args:
        capacity: C after the warm-up, in nats per image.
        gamma: weight of the penalty.
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: raises the capacity from 0 to its value; gamma is constant.
    """

    @checked
    def __init__(
        self,
        capacity: NonNegativeNumber = 25.0,
        gamma: NonNegativeNumber = 1000.0,
        samples: PositiveInt = 1,
        divergence: Literal["analytic", "sampled"] = "analytic",
        warmup: Warmup | None = None,
    ) -> None:
        super().__init__(samples, divergence, warmup)
        self.capacity, self.gamma = capacity, gamma

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        excess = trace.shard.mean(trace.kl.mean()) - self.capacity * self.warmup_factor()
        return trace.terms(loss=trace.reconstruction.mean() + self.gamma * excess.abs())
