"""Priors p(z): the distributions of latent vectors before an image is observed.

A prior is a module. Its ``forward`` returns a :class:`vaelab.models.distributions.latents.Latent` with empty batch
shape and event shape (latent_dim,). Its argument is the VAE's encoder, from images (B, C, H, W) to q(z|x), which most
priors ignore.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaelab.models.distributions import latents
from vaelab.models.distributions.flows import AffineCoupling, Composition
from vaelab.models.distributions.latents import Latent
from vaelab.runtime.validation import Fraction, ImageShape, PositiveInt, PositiveNumber, checked

Encode = Callable[[Tensor], Latent]


class StandardNormal(nn.Module):
    """``N(0, I)``, without parameters (Kingma and Welling 2014, arXiv 1312.6114).

    Args:
        latent_dim: the number of latent dimensions.
    """

    zero: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)

    def forward(self, encode: Encode) -> Latent:
        """p(z), event shape (latent_dim,)."""
        return latents.StandardNormal(self.zero)


class GaussianMixture(nn.Module):
    r"""Mixture of Gaussians with diagonal covariances, and with learned weights, means and scales.

    .. math:: p(z) = \sum_{k=1}^K \pi_k\, N(z; \mu_k, \mathrm{diag}(\sigma_k^2))

    Initially all weights are equal, the means are drawn from :math:`N(0, a^2 I)`, and all variances are
    :math:`1 - a^2`. Averaged over such means, the initial prior is N(0, I).

    Args:
        latent_dim: the number of latent dimensions.
        components: K.
        spread: a, between 0 and 1: the standard deviation of the initial means.

    Raises:
        ValueError: ``components`` or ``spread`` is impossible.
    """

    @checked
    def __init__(self, latent_dim: int, components: PositiveInt = 10, spread: Fraction = 0.5) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(spread * torch.randn(components, latent_dim))
        self.log_stds = nn.Parameter(torch.full((components, latent_dim), 0.5 * math.log(1 - spread**2)))

    def forward(self, encode: Encode) -> Latent:
        """p(z), event shape (latent_dim,)."""
        return latents.Mixture(self.logits, latents.DiagonalGaussian(self.means, self.log_stds))


class VampPrior(nn.Module):
    r"""Mixture of the posteriors of learned images, the pseudo-inputs.

    .. math:: p(z) = \sum_{k=1}^K \pi_k\, q(z|u_k), \qquad u_k \in [0, 1]^{C \times H \times W}

    Tomczak and Welling (2018), arXiv 1705.07120. The prior that maximises the ELBO is the aggregated posterior, which
    this mixture of K posteriors approximates. In a conditional VAE the pseudo-inputs are assigned to the classes in
    turn.

    Every use of the prior encodes all K pseudo-inputs. It is slow with a posterior whose density at given latents is
    slow, such as an inverse autoregressive flow.

    Args:
        latent_dim: the number of latent dimensions; not used, because the posterior determines it.
        image_shape: (C, H, W).
        components: K.
        weights: :math:`\pi_k`: ``uniform``, 1/K as in the paper, or ``learned``.
        initial_mean: the mean of the pseudo-inputs' initial pixels, between 0 (black) and 1 (white).
        initial_std: the standard deviation of these pixels, before they are clipped to [0.01, 0.99].

    Raises:
        ValueError: an argument is impossible.
    """

    @checked
    def __init__(
        self,
        latent_dim: int,
        image_shape: ImageShape,
        components: PositiveInt = 100,
        weights: Literal["uniform", "learned"] = "uniform",
        initial_mean: Fraction = 0.5,
        initial_std: PositiveNumber = 0.25,  # equal pseudo-inputs would stay equal
    ) -> None:
        super().__init__()
        pixels = initial_mean + initial_std * torch.randn(components, *image_shape)
        # A clipped pixel gets no gradient: a pixel that started at 0 or 1 would stay there.
        self.pixels = nn.Parameter(pixels.clamp(0.01, 0.99))
        self.logits: Tensor
        if weights == "learned":
            self.logits = nn.Parameter(torch.zeros(components))
        else:
            self.register_buffer("logits", torch.zeros(components), persistent=False)

    @property
    def pseudo_inputs(self) -> Tensor:
        """The images u, (K, C, H, W), in [0, 1]."""
        return F.hardtanh(self.pixels, 0.0, 1.0)

    def forward(self, encode: Encode) -> Latent:
        """p(z), event shape (latent_dim,)."""
        return latents.Mixture(self.logits, encode(self.pseudo_inputs))


class RealNVP(nn.Module):
    r"""A standard normal vector, transformed by affine couplings that change its two halves in turn.

    .. math:: z = f_T \circ \dots \circ f_1(u), \qquad u \sim N(0, I)

    Dinh, Sohl-Dickstein and Bengio (2017), arXiv 1605.08803. Sampling and the density are both exact and take one
    pass. Initially the prior is N(0, I).

    Args:
        latent_dim: the number of latent dimensions, at least two.
        couplings: T, see :class:`vaelab.models.distributions.flows.AffineCoupling`.
        hidden_sizes: widths of each coupling's network.
        activation: the activation of these networks, a class of :mod:`torch.nn`.

    Raises:
        ValueError: there is one latent dimension, or another argument is impossible.
    """

    zero: Tensor

    @checked
    def __init__(
        self,
        latent_dim: int,
        couplings: PositiveInt = 6,
        hidden_sizes: Sequence[PositiveInt] = (64, 64),
        activation: str = "SiLU",
    ) -> None:
        super().__init__()
        if latent_dim < 2:
            raise ValueError(
                f"RealNVP has no halves of {latent_dim} latent dimension: type latent_dim=2 or more, or "
                "prior=gaussian_mixture"
            )
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)
        self.transform = Composition(
            AffineCoupling(latent_dim, hidden_sizes, activation, swap=i % 2 == 1) for i in range(couplings)
        )

    def forward(self, encode: Encode) -> Latent:
        """p(z), event shape (latent_dim,)."""
        return latents.Flow(latents.StandardNormal(self.zero), self.transform)
