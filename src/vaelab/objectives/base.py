"""The base of all objectives: latent samples of a batch, and the terms of the bound computed with them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from vaelab.models.distributions.latents import Latent
from vaelab.models.vae import VAE
from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.validation import PositiveInt, checked


@dataclass
class Trace:
    """Latent samples of a batch of images, and their densities, from which objectives are computed.

    Attributes:
        q_z: the posterior q(z|x), batch shape (B,).
        p_z: the prior p(z).
        z: samples from q(z|x), (K, B, latent_dim).
        log_q, log_p: log q(z|x) and log p(z) of the samples, (K, B); ``None`` if the objective does not need them.
        log_likelihood: log p(x|z) of the samples, (K, B).
        kl: KL(q(z|x) || p(z)), (B,): its closed form, or its estimate by the samples.
        shard: which part of the batch these images are.
        reconstruction: the estimate of -E_q[log p(x|z)], (B,).
    """

    q_z: Latent
    p_z: Latent
    z: Tensor
    log_q: Tensor | None
    log_p: Tensor | None
    log_likelihood: Tensor
    kl: Tensor
    shard: Shard
    reconstruction: Tensor = field(init=False)  # no cached_property: its lock would break compiled graphs

    def __post_init__(self) -> None:
        self.reconstruction = -self.log_likelihood.mean(0)

    def terms(self, loss: Tensor, **others: Tensor) -> dict[str, Tensor]:
        """The result of an objective.

        Args:
            loss: the scalar to be minimised.
            others: further terms to report.
        """
        elbo = -(self.reconstruction + self.kl)
        return {"loss": loss, "elbo": elbo, "reconstruction": self.reconstruction, "kl": self.kl, **others}


class Objective(nn.Module, ABC):
    r"""Base class of objectives: it draws the samples, and a subclass combines the terms into a loss.

    Args:
        samples: K, the number of latent samples per image.
        divergence: how KL(q(z|x) || p(z)) is computed. ``analytic``: by its closed form. ``sampled``: estimated by the
            K samples, :math:`\frac1K \sum_k \log q(z_k|x) - \log p(z_k)`. The estimate needs no closed form and has
            more noise: it can be negative for a single image.

    Attributes:
        needs_densities: whether the subclass needs log q(z|x) and log p(z) of the samples.
        trains_variance: whether it trains the variance of the posterior.
        data_size: the number of training images; the trainer sets it.
        step: the number of optimisation steps done; the trainer sets it.
    """

    needs_densities = False
    trains_variance = True
    data_size: int | None = None
    step: Tensor

    @checked
    def __init__(self, samples: PositiveInt = 1, divergence: Literal["analytic", "sampled"] = "analytic") -> None:
        super().__init__()
        self.samples, self.divergence = samples, divergence
        # A tensor, because compiled code would be compiled again for every value of a number.
        self.register_buffer("step", torch.zeros(()), persistent=False)

    @abstractmethod
    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        """The terms of images (B, C, H, W) with labels (B,), see :mod:`vaelab.objectives`.

        Args:
            vae: the model.
            x: the images.
            y: their labels, for a conditional model.
            shard: which part of their batch the images are; ``None`` if they are all of it.
        """

    def trace(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> Trace:
        """Samples from q(z|x), and their densities; arguments as in :meth:`forward`.

        Raises:
            NotImplementedError: ``divergence`` is analytic, and there is no closed form between this posterior and this
                prior.
        """
        q_z, p_z = vae.encode(x, y), vae.p_z()
        shard = Shard.of(len(x)) if shard is None else shard
        log_q = log_p = None
        if self.needs_densities or self.divergence == "sampled":
            z, log_q = q_z.rsample_and_log_prob((self.samples,), shard)
            log_p = p_z.log_prob(z)
        else:
            z = q_z.rsample((self.samples,), shard)
        if self.divergence == "sampled":
            assert log_q is not None
            assert log_p is not None
            kl = (log_q - log_p).mean(0)
        else:
            kl = kl_divergence(q_z, p_z)
        return Trace(q_z, p_z, z, log_q, log_p, vae.log_likelihood(x, z, y, shard), kl, shard)
