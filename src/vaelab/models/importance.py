r"""Importance sampling: a lower bound on an image's log-likelihood from many latent samples.

.. math:: L_k = \mathbb{E} \log \frac1k \sum_{i=1}^k w_i \leq \log p(x), \qquad
    w_i = \frac{p(x|z_i)\, p(z_i)}{q(z_i|x)}, \quad z_i \sim q(z|x)

Burda, Grosse and Salakhutdinov (2016), arXiv 1509.00519: the bound rises with k, is the ELBO for k = 1, and tends to
log p(x).
"""

import math

import torch
from torch import Tensor

from vaelab.models.vae import VAE

_PIXELS_AT_ONCE = 3_000_000  # decoded at once: few enough for the memory, enough for fast matrix products


@torch.no_grad()
def log_weights(vae: VAE, x: Tensor, samples: int, y: Tensor | None = None) -> Tensor:
    """Log importance weights of images (B, C, H, W), in nats, shape (samples, B), in 64 bits on the CPU.

    The images are encoded once, and the samples are decoded in pieces that fit into memory.

    Args:
        vae: the model, in evaluation mode.
        x: the images.
        samples: the number of samples per image.
        y: labels (B,), for a conditional model: the bound is then on log p(x|y).
    """
    at_once = max(1, _PIXELS_AT_ONCE // x.numel())
    return vae.log_weights(x, samples, y, at_once).cpu().double()  # some devices have no 64 bits


def importance_bound(log_weights: Tensor, k: int | None = None) -> Tensor:
    """The bound with k samples, from log weights (K, B): the mean over all whole groups of k among the K.

    Args:
        log_weights: in nats, K at least k.
        k: the size of a group; ``None`` for K.

    Returns:
        Shape (B,), in nats.
    """
    k = k or len(log_weights)
    groups = log_weights[: len(log_weights) // k * k].unflatten(0, (-1, k))
    return (groups.logsumexp(1) - math.log(k)).mean(0)


def effective_samples(log_weights: Tensor) -> Tensor:
    r"""The effective number of samples, :math:`(\sum_k w_k)^2 / \sum_k w_k^2`, from log weights (K, B); shape (B,)."""
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()
