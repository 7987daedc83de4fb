"""Approximate posteriors q(z|x): how the encoder's features become a distribution over latent vectors.

A posterior is a module that maps features, shape (B, in_features), to a :class:`vaelab.distributions.Latent` with
batch shape (B,) and event shape (latent_dim,).
"""

from typing import Literal

from torch import Tensor, nn

from vaelab import distributions
from vaelab.distributions import Latent


class DiagonalGaussian(nn.Module):
    r"""Gaussian with diagonal covariance whose mean and scale are linear in the features (arXiv 1312.6114).

    Args:
        in_features: the number of features that the encoder puts out.
        latent_dim: the number of latent dimensions.
        scale: what the second half of the outputs means: ``log_variance``, :math:`\log \sigma^2`, or ``log_std``,
            :math:`\log \sigma`. The family is the same; the latter's gradient is twice as steep.
    """

    def __init__(
        self, in_features: int, latent_dim: int, scale: Literal["log_variance", "log_std"] = "log_variance"
    ) -> None:
        super().__init__()
        if scale not in ("log_variance", "log_std"):
            raise ValueError(f"the posterior's scale is log_variance or log_std, not {scale!r}")
        self.scale = scale
        self.head = nn.Linear(in_features, 2 * latent_dim)

    def forward(self, features: Tensor) -> Latent:
        """Features (B, in_features) to q(z|x), batch shape (B,), event shape (latent_dim,)."""
        mean, scale = self.head(features).float().chunk(2, dim=-1)
        return distributions.DiagonalGaussian(mean, 0.5 * scale if self.scale == "log_variance" else scale)
