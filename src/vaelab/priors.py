"""Priors p(z): what latent vectors look like before an image is seen.

A prior is a module without inputs whose forward returns a :class:`torch.distributions.Distribution` with empty batch
shape and event shape (latent_dim,).
"""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab import distributions


class StandardNormal(nn.Module):
    """``N(0, I)``, without parameters (Kingma and Welling 2014, arXiv 1312.6114).

    Args:
        latent_dim: the number of latent dimensions.
    """

    zero: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> Distribution:
        """p(z), event shape (latent_dim,)."""
        return distributions.StandardNormal(self.zero)
