"""Objectives that count the divergence from the prior in another way than the bound does."""

from typing import Literal

from torch import Tensor

from vaelab.models.distributions.latents import DiagonalGaussian, dimension_kls
from vaelab.models.vae import VAE
from vaelab.objectives.base import Trace
from vaelab.objectives.warmup import AnnealedObjective, Warmup
from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.validation import NonNegativeNumber, checked


class BetaVAE(AnnealedObjective):
    r"""The beta-VAE (Higgins et al. 2017, ICLR, openreview Sy2fzU9gl): the bound with a weighted divergence.

    .. math:: \mathbb{E}_q[\log p(x|z)] - \beta\, \mathrm{KL}(q(z|x) \| p(z))

    Args:
        beta: above 1 for latents that are independent of each other, below 1 for sharper reconstructions; 1 is the
            bound itself, for a warm-up of it.
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: by which beta rises to its value.
    """

    @checked
    def __init__(
        self,
        beta: NonNegativeNumber = 4.0,
        samples: int = 1,
        divergence: Literal["analytic", "sampled"] = "analytic",
        warmup: Warmup | None = None,
    ) -> None:
        super().__init__(samples, divergence, warmup)
        self.beta = beta

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        return trace.terms(loss=(trace.reconstruction + self.beta * self.warmup_factor() * trace.kl).mean())


class FreeBits(AnnealedObjective):
    r"""Free bits (Kingma et al. 2016, arXiv 1606.04934, appendix C.8): a divergence that is not penalised.

    .. math::
        \mathbb{E}_{x \in \mathcal M} \mathbb{E}_q[\log p(x|z)] -
        \sum_j \max\bigl(\lambda, \mathbb{E}_{x \in \mathcal M} \mathrm{KL}(q(z_j|x) \| p(z_j))\bigr)

    The expectation over the minibatch M is taken before the maximum: some images may use a dimension less than others.

    Args:
        free_nats: :math:`\lambda`, nats per latent dimension.
        per: what is penalised above that. ``dimension``: each dimension by itself, by the closed form between Gaussians
            with diagonal covariance, whatever ``divergence`` is. ``total``: all of them together, above
            ``latent_dim * free_nats``; any posterior and prior can do this, but it leaves dimensions unused.
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: of the divergence's weight, from 0 to 1.
    """

    @checked
    def __init__(
        self,
        free_nats: NonNegativeNumber = 0.25,
        per: Literal["dimension", "total"] = "dimension",
        samples: int = 1,
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
        # A full covariance is refused: its dimensions add up to less than its divergence, and free_nats=0 is the bound.
        kls = dimension_kls(trace.q_z, trace.p_z) if isinstance(trace.q_z, DiagonalGaussian) else None
        if kls is None:
            raise NotImplementedError(
                "only Gaussians with diagonal covariance have a divergence for each latent dimension, as posterior and "
                "as prior: type module.objective.per=total"
            )
        return kls


class Capacity(AnnealedObjective):
    r"""The capacity-controlled beta-VAE (Burgess et al. 2018, arXiv 1804.03599): the divergence is held at a value.

    .. math:: \mathbb{E}_q[\log p(x|z)] - \gamma\, \bigl|\mathrm{KL}(q(z|x) \| p(z)) - C\bigr|

    The divergence is the mean over the batch: the capacity is the channel's, and images may differ in what they use of
    it.

    Args:
        capacity: C in nats per image, the value at the end.
        gamma: how strictly it is kept.
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: by which the capacity rises from 0 to its value; gamma is the same from the beginning.
    """

    @checked
    def __init__(
        self,
        capacity: NonNegativeNumber = 25.0,
        gamma: NonNegativeNumber = 1000.0,
        samples: int = 1,
        divergence: Literal["analytic", "sampled"] = "analytic",
        warmup: Warmup | None = None,
    ) -> None:
        super().__init__(samples, divergence, warmup)
        self.capacity, self.gamma = capacity, gamma

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        excess = trace.shard.mean(trace.kl.mean()) - self.capacity * self.warmup_factor()
        return trace.terms(loss=trace.reconstruction.mean() + self.gamma * excess.abs())
