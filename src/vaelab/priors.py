"""Priors p(z): what latent vectors look like before an image is seen.

A prior is a module whose forward returns a :class:`vaelab.distributions.Latent` with empty batch shape and event shape
(latent_dim,). It is given the VAE's encoder, from images (B, C, H, W) to q(z|x), which most priors do not look at.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaelab import distributions
from vaelab.distributions import Latent

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
        return distributions.StandardNormal(self.zero)
