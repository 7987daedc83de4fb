"""Approximate posteriors q(z|x): maps from the encoder's features to distributions over latent vectors.

A posterior is a module that maps features, shape (B, in_features), to a
:class:`vaelab.models.distributions.latents.Latent` with batch shape (B,) and event shape (latent_dim,).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vaelab.models.distributions import latents
from vaelab.models.distributions.flows import MADE, Composition, GatedAutoregression
from vaelab.models.distributions.latents import Latent
from vaelab.runtime.validation import PositiveInt, checked


class DiagonalGaussian(nn.Module):
    r"""Gaussian with diagonal covariance; its mean and log scale are linear in the features (arXiv 1312.6114).

    Args:
        in_features: the number of features of the encoder.
        latent_dim: the number of latent dimensions.
        scale: the meaning of the second half of the outputs: ``log_variance``, :math:`\log \sigma^2`, or ``log_std``,
            :math:`\log \sigma`. The distributions are the same; with ``log_std`` the gradient is twice as steep.
    """

    @checked
    def __init__(
        self, in_features: int, latent_dim: int, scale: Literal["log_variance", "log_std"] = "log_variance"
    ) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Linear(in_features, 2 * latent_dim)

    def forward(self, features: Tensor) -> Latent:
        """Features (B, in_features) to q(z|x), batch shape (B,), event shape (latent_dim,)."""
        mean, scale = self.head(features).float().chunk(2, dim=-1)
        return latents.DiagonalGaussian(mean, 0.5 * scale if self.scale == "log_variance" else scale)


class FullGaussian(nn.Module):
    r"""Gaussian with a full covariance :math:`L L^\top`; its mean and Cholesky factor L depend on the features.

    .. math:: q(z|x) = N(\mu, L L^\top), \qquad L_{ii} = e^{s_i}, \qquad L_{ij} = e^{s_i} b_{ij} \text{ for } j < i

    Kingma and Welling (2019), arXiv 1906.02691, section 2.5.1. The outputs of the head are :math:`\mu`, s and
    the D (D - 1) / 2 numbers b. Initially b is zero, so that the Gaussian is diagonal. b is relative to the scale of
    its dimension: otherwise an optimisation step would be too large for a dimension with a small scale.

    Args:
        in_features: the number of features of the encoder.
        latent_dim: D, the number of latent dimensions.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        rows, columns = torch.tril_indices(latent_dim, latent_dim, offset=-1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.sizes = [latent_dim, latent_dim, len(rows)]
        self.head = nn.Linear(in_features, sum(self.sizes))
        self._reset_to_diagonal()

    def _reset_to_diagonal(self) -> None:
        with torch.no_grad():
            self.head.weight[2 * self.sizes[0] :] = 0
            self.head.bias[2 * self.sizes[0] :] = 0

    def apply(self, fn: Callable[[nn.Module], None]) -> "FullGaussian":
        """Applies a function, such as an initialisation, to every submodule, and then sets b to zero again."""
        super().apply(fn)
        self._reset_to_diagonal()
        return self

    def forward(self, features: Tensor) -> Latent:
        """Features (B, in_features) to q(z|x), batch shape (B,), event shape (latent_dim,)."""
        mean, log_diagonal, below = self.head(features).float().split(self.sizes, -1)
        scale_tril = torch.diag_embed(log_diagonal.exp())  # (B, D, D)
        scale_tril[..., self.rows, self.columns] = below * log_diagonal.exp()[..., self.rows]
        return latents.FullGaussian(mean, scale_tril)


class InverseAutoregressiveFlow(nn.Module):
    r"""A diagonal Gaussian, transformed by autoregressive steps that alternate the order of the dimensions.

    .. math:: z = f_T \circ \dots \circ f_1(u), \qquad u \sim N(\mu, \mathrm{diag}(\sigma^2))

    Kingma et al. (2016), arXiv 1606.04934. :math:`\mu`, :math:`\log \sigma` and the context of all steps are linear in
    the features. Samples and their densities are exact and take T passes. The density of given latents takes D T
    passes; a VampPrior needs it.

    Args:
        in_features: the number of features of the encoder.
        latent_dim: D, the number of latent dimensions.
        steps: T, see :class:`vaelab.models.distributions.flows.GatedAutoregression`.
        context_size: the number of context features.
        hidden_sizes: widths of each step's network.
        activation: the activation of these networks, a class of :mod:`torch.nn`.

    Raises:
        ValueError: a size is not a positive integer, or there is no such activation.
    """

    @checked
    def __init__(
        self,
        in_features: int,
        latent_dim: int,
        steps: PositiveInt = 4,
        context_size: PositiveInt = 64,
        hidden_sizes: Sequence[PositiveInt] = (128,),
        activation: str = "ELU",
    ) -> None:
        super().__init__()
        self.sizes = [latent_dim, latent_dim, context_size]
        self.head = nn.Linear(in_features, sum(self.sizes))
        self.transform = Composition(
            GatedAutoregression(MADE(latent_dim, context_size, hidden_sizes, activation, backwards=i % 2 == 1))
            for i in range(steps)
        )

    def forward(self, features: Tensor) -> Latent:
        """Features (B, in_features) to q(z|x), batch shape (B,), event shape (latent_dim,)."""
        mean, log_std, context = self.head(features).float().split(self.sizes, -1)
        return latents.Flow(latents.DiagonalGaussian(mean, log_std), self.transform, context)
