"""What objectives have in common: latent samples, and the terms of the bound that they give."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from vaelab.models.distributions.latents import Latent
from vaelab.models.vae import VAE
from vaelab.runtime.data_parallel import noise_of_images


@dataclass
class Trace:
    """Latent samples of a batch of images, and what objectives are made of.

    Attributes:
        q_z: the posterior q(z|x), batch shape (B,).
        p_z: the prior p(z).
        z: samples of q(z|x), (K, B, latent_dim).
        log_q, log_p: log q(z|x) and log p(z) of them, (K, B); ``None`` where nothing asked for them.
        log_likelihood: log p(x|z) of them, (K, B).
        kl: KL(q(z|x) || p(z)), (B,): its closed form, or its estimate by these samples.
        reconstruction: the estimate of -E_q[log p(x|z)], (B,).
    """

    q_z: Latent
    p_z: Latent
    z: Tensor
    log_q: Tensor | None
    log_p: Tensor | None
    log_likelihood: Tensor
    kl: Tensor
    reconstruction: Tensor = field(init=False)  # no cached_property: its lock would break compiled graphs

    def __post_init__(self) -> None:
        self.reconstruction = -self.log_likelihood.mean(0)

    def terms(self, loss: Tensor, **others: Tensor) -> dict[str, Tensor]:
        """What an objective returns whose loss this is, and which reports these others as well."""
        elbo = -(self.reconstruction + self.kl)
        return {"loss": loss, "elbo": elbo, "reconstruction": self.reconstruction, "kl": self.kl, **others}


def check_number(name: str, value: float, least: float = 0) -> None:
    """Refuses a setting that is no finite number, or less than it may be.

    Raises:
        ValueError: with the setting's name.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise ValueError(f"an objective's {name} must be a finite number of at least {least}, not {value!r}")


class Objective(nn.Module, ABC):
    r"""Base class: draws samples, and leaves it to a subclass what to make of them.

    Args:
        samples: K, the number of latent samples per image.
        divergence: how KL(q(z|x) || p(z)) is found: ``analytic``, by its closed form; or ``sampled``, estimated by the
            K samples, :math:`\frac1K \sum_k \log q(z_k|x) - \log p(z_k)`, which needs no closed form and has more
            noise: it can be negative for a single image.
    """

    needs_densities = False  # whether a subclass looks at log q(z|x) and log p(z) of the samples
    trains_variance = True  # of the posterior
    data_size: int | None = None  # how many images there are to train with, set by whatever trains
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
        """The terms of images (B, C, H, W) with labels (B,), see the package's description."""

    def draw(self, vae: VAE, x: Tensor, y: Tensor | None = None) -> Trace:
        """Samples z of q(z|x), and the terms of the bound.

        Raises:
            NotImplementedError: there is no closed form between this posterior and this prior, and one was asked for.
        """
        q_z, p_z = vae.encode(x, y), vae.p_z()
        shape = torch.Size((self.samples,))
        log_q = log_p = None
        with noise_of_images():
            if self.needs_densities or self.divergence == "sampled":
                z, log_q = q_z.rsample_and_log_prob(shape)
                log_p = p_z.log_prob(z)
            else:
                z = q_z.rsample(shape)
        if self.divergence == "sampled":
            assert log_q is not None
            assert log_p is not None
            kl = (log_q - log_p).mean(0)
        else:
            kl = kl_divergence(q_z, p_z)
        return Trace(q_z, p_z, z, log_q, log_p, vae.decode(z, y).log_prob(x), kl)
