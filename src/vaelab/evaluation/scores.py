"""A score for every image, by which those that do not belong can be told: an estimate of its log-likelihood.

Where the loss is no likelihood of the images, neither is the score, and it orders images all the same.

The caveat belongs to it: a generative model can give images of another, simpler data set *higher* likelihoods than
those it was trained on (Nalisnick et al. 2019, arXiv 1810.09136).
"""

import math

import torch
from rich.progress import track
from torch import Tensor

from vaelab.vae import VAE

_DECODED_AT_ONCE = 4000  # latents times images: keeps activations small, and products large enough


@torch.no_grad()
def importance_weighted_bound(vae: VAE, x: Tensor, samples: int, y: Tensor | None = None) -> Tensor:
    r"""A lower bound on log p(x) per image, in nats, that tends to it with the number of samples.

    .. math:: \log \frac1K \sum_{k=1}^K \frac{p(x|z_k)\, p(z_k)}{q(z_k|x)}, \qquad z_k \sim q(z|x)

    Burda, Grosse and Salakhutdinov (2016), arXiv 1509.00519. With K = 1 it is the single-sample ELBO. The sum is
    gathered piece by piece, so that memory does not grow with K.

    Args:
        vae: the model, in evaluation mode.
        x: images (B, C, H, W).
        samples: K.
        y: labels (B,), which a conditional model needs: the bound is one on log p(x|y) then.

    Returns:
        Shape (B,).
    """
    total = x.new_full((len(x),), -math.inf)
    at_once = max(1, _DECODED_AT_ONCE // len(x))
    for start in range(0, samples, at_once):
        log_weights = vae.log_weights(x, min(at_once, samples - start), y)
        total = torch.logaddexp(total, log_weights.logsumexp(0))
    return total - math.log(samples)


def score_images(
    vae: VAE, images: Tensor, labels: Tensor, samples: int, description: str, batch_size: int = 500
) -> Tensor:
    """The bound of :func:`importance_weighted_bound` for stored images, with a progress bar.

    Args:
        vae: the model, in evaluation mode.
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        samples: K.
        description: beside the progress bar.
        batch_size: images at once.

    Returns:
        Shape (N,), on the CPU.
    """
    device = next(vae.parameters()).device
    parts = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    return torch.cat(
        [
            importance_weighted_bound(vae, x.to(device).float() / 255, samples, y.to(device)).cpu()
            for x, y in track(parts, description, transient=True)
        ]
    )


def auroc(inliers: Tensor, outliers: Tensor) -> float:
    """The probability that an inlier scores higher than an outlier, a tie counting half: the area under the ROC curve.

    Args:
        inliers, outliers: scores, shapes (N,) and (M,), higher for what belongs.
    """
    scores = torch.cat([inliers, outliers]).double()
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    ranks = (last - (counts - 1) / 2)[inverse]  # tied scores share the mean of their ranks
    n, m = len(inliers), len(outliers)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
