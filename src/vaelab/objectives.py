r"""Objectives: the bound that is maximised, and the terms that are reported beside it.

An objective is a module with ``forward(vae, x, y)`` for images x of shape (B, C, H, W) and their labels y, which only a
conditional VAE looks at. It returns a dictionary of nats per example, shape (B,), and one scalar:

- ``elbo``: a single number to compare runs by, the evidence lower bound
  :math:`\mathbb{E}_q[\log p(x|z)] - \mathrm{KL}(q(z|x) \| p(z))`, *whatever* is optimised;
- ``reconstruction``: :math:`-\mathbb{E}_q[\log p(x|z)]`;
- ``kl``: :math:`\mathrm{KL}(q(z|x) \| p(z))`, so that ``elbo = -(reconstruction + kl)``;
- ``loss``: the scalar to be minimised, averaged over the batch.

Terms are summed over pixels and latent dimensions. They are nats where the likelihood is normalised for its data
(:meth:`vaelab.likelihoods.Likelihood.is_normalized`); where it is not, they are that loss and nothing more.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from vaelab.distributions import Latent
from vaelab.vae import VAE


@dataclass
class Draw:
    """Latent samples of a batch of images, and what objectives are made of.

    Attributes:
        q_z: the posterior q(z|x), batch shape (B,).
        p_z: the prior p(z).
        z: samples of q(z|x), (K, B, latent_dim).
        log_q: log q(z|x) of them, (K, B); ``None`` where nothing asked for it.
        log_likelihood: log p(x|z) of them, (K, B).
        kl: KL(q(z|x) || p(z)), (B,): its closed form, or its estimate by these samples.
    """

    q_z: Latent
    p_z: Latent
    z: Tensor
    log_q: Tensor | None
    log_likelihood: Tensor
    kl: Tensor

    @cached_property
    def reconstruction(self) -> Tensor:
        """The estimate of -E_q[log p(x|z)], (B,)."""
        return -self.log_likelihood.mean(0)

    def terms(self, loss: Tensor) -> dict[str, Tensor]:
        """What an objective returns whose loss this is."""
        elbo = -(self.reconstruction + self.kl)
        return {"loss": loss, "elbo": elbo, "reconstruction": self.reconstruction, "kl": self.kl}


class Objective(nn.Module, ABC):
    r"""Base class: draws samples, and leaves it to a subclass what to make of them.

    Args:
        samples: K, the number of latent samples per image.
        divergence: how KL(q(z|x) || p(z)) is found: ``analytic``, by its closed form; or ``sampled``, estimated by the
            K samples, :math:`\frac1K \sum_k \log q(z_k|x) - \log p(z_k)`, which needs no closed form and has more
            noise: it can be negative for a single image.
    """

    needs_log_q = False  # whether a subclass looks at log q(z|x) of the samples
    step: Tensor

    def __init__(self, samples: int = 1, divergence: Literal["analytic", "sampled"] = "analytic") -> None:
        super().__init__()
        if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
            raise ValueError(f"an objective's samples must be a positive integer, not {samples!r}")
        if divergence not in ("analytic", "sampled"):
            raise ValueError(f"an objective's divergence is analytic or sampled, not {divergence!r}")
        self.samples, self.divergence = samples, divergence
        # Optimisation steps done, set by whatever trains: a tensor, lest compiled code be compiled for every step.
        self.register_buffer("step", torch.zeros(()), persistent=False)

    @abstractmethod
    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """The terms of images (B, C, H, W) with labels (B,), see the module's description."""

    def draw(self, vae: VAE, x: Tensor, y: Tensor | None = None) -> Draw:
        """Samples z of q(z|x), and the terms of the bound.

        Raises:
            NotImplementedError: there is no closed form between this posterior and this prior, and one was asked for.
        """
        q_z, p_z = vae.encode(x, y), vae.p_z()
        shape = torch.Size((self.samples,))
        log_q = None
        if self.needs_log_q or self.divergence == "sampled":
            z, log_q = q_z.rsample_and_log_prob(shape)
        else:
            z = q_z.rsample(shape)
        if self.divergence == "sampled":
            assert log_q is not None
            kl = (log_q - p_z.log_prob(z)).mean(0)
        else:
            kl = kl_divergence(q_z, p_z)
        return Draw(q_z, p_z, z, log_q, vae.decode(z, y).log_prob(x), kl)


class ELBO(Objective):
    r"""The evidence lower bound (Kingma and Welling 2014, arXiv 1312.6114).

    .. math:: \frac1K \sum_{k=1}^K \log p(x|z_k) - \mathrm{KL}(q(z|x) \| p(z)), \qquad z_k \sim q(z|x)

    With the closed form of the divergence it is the paper's estimator B, with its estimate by the samples estimator A.
    """

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        draw = self.draw(vae, x, y)
        return draw.terms(loss=(draw.reconstruction + draw.kl).mean())


class Autoencoder(Objective):
    r"""A plain autoencoder: the latent code is the posterior's centre, and nothing keeps it near the prior.

    .. math:: \log p(x|\mathbb{E}_q[z])

    For comparison with a variational one: codes reconstruct better, but what lies between them decodes to nothing. The
    reported terms are those of the bound, which this does not maximise: the posterior's scale is never trained.
    """

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        with torch.no_grad():
            draw = self.draw(vae, x, y)
        return draw.terms(loss=-vae.decode(vae.encode(x, y).centre, y).log_prob(x).mean())
