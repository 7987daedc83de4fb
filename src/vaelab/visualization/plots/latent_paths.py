"""Principal axes of latents, grids and straight lines in latent space."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def principal_axes(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean (D,) of points (N, D), their first two principal axes (2, D), and their shares of the variance (2,).

    The largest loading of an axis is positive. One dimension has one axis. A single point has any axes, with shares 0.
    """
    points = points.double().cpu()
    mean = points.mean(0)
    _, singular, axes = torch.linalg.svd(points - mean, full_matrices=len(points) < 2)
    axes = axes[:2]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    variances = F.pad(singular.square(), (0, len(axes)))[: len(axes)]
    return mean, axes, variances / singular.square().sum().clamp_min(1e-30)


def pca(points: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (N, 2) of points (N, D) on their principal axes, and the axes' shares of the variance (2,)."""
    mean, axes, shares = principal_axes(points)
    return (points.double().cpu() - mean) @ axes.T, shares


def manifold_latents(count: int, latent_dim: int, dims: Sequence[int]) -> Tensor:
    """Latents on a grid of standard normal quantiles from 0.05 to 0.95, row after row from the top.

    Args:
        count: number of quantiles of each dimension.
        latent_dim: D.
        dims: the dimension that increases to the right, and the one that increases upwards. A single dimension makes
            one row. The other dimensions are 0.

    Returns:
        Shape (count ** len(dims), D).
    """
    quantiles = torch.special.ndtri(torch.linspace(0.05, 0.95, count, dtype=torch.float64)).float()
    if len(dims) == 1:
        axes = quantiles[:, None]
    else:
        up, right = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
        axes = torch.stack([right, up], -1).flatten(0, 1)
    z = torch.zeros(len(axes), latent_dim)
    z[:, list(dims)] = axes
    return z


def straight_path(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Points (steps, D) on the straight line between two latents (D,), with both ends."""
    weights = torch.linspace(0, 1, steps, device=start.device, dtype=start.dtype)[:, None]
    return start * (1 - weights) + end * weights
