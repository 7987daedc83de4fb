r"""Importance sampling: many latent samples of an image bound its log-likelihood from below.

.. math:: L_k = \mathbb{E} \log \frac1k \sum_{i=1}^k w_i \leq \log p(x), \qquad
    w_i = \frac{p(x|z_i)\, p(z_i)}{q(z_i|x)}, \quad z_i \sim q(z|x)

Burda, Grosse and Salakhutdinov (2016), arXiv 1509.00519: the bound rises with k, is the ELBO for k = 1, and tends to
log p(x).
"""

import math

import torch
from torch import Tensor

from vaelab.models.vae import VAE

_PIXELS_AT_ONCE = 3_000_000  # that are decoded: keeps activations small, and products large enough


@torch.no_grad()
def log_weights(vae: VAE, x: Tensor, samples: int, y: Tensor | None = None) -> Tensor:
    """Log importance weights of images (B, C, H, W), in nats, shape (samples, B), in 64 bits on the CPU.

    The images are encoded once, and the samples are decoded in pieces that fit into memory.

    Args:
        vae: the model, in evaluation mode.
        x: images.
        samples: the number of samples for each image.
        y: labels (B,), which a conditional model needs: everything is conditional on them then.
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
    r"""How many equal weights would be as good as these, :math:`(\sum w)^2 / \sum w^2`, of log weights (K, B)."""
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()
