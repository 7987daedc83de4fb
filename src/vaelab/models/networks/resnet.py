"""Residual networks, which reach a better bound at several times the cost of plain convolutions.

The blocks are those of He et al. (2016, arXiv 1603.05027), with normalisation and activation before each convolution.
They use group normalisation (Wu and He 2018, arXiv 1803.08494), so that an image's code does not depend on its batch.
Initially each block is near the identity. Strided convolutions halve the size. Repeated pixels double it, followed by a
convolution, which avoids checkerboard patterns (Odena, Dumoulin and Olah 2016).
"""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaelab.models.networks.layers import activation as make_activation
from vaelab.runtime.validation import (
    FractionOrZero,
    ImageShape,
    NonNegativeInt,
    checked,
    integer,
    sequence,
)

Channels = Annotated[Sequence[int], sequence(integer(1), least=1, example=[32, 64])]  # of each stage


def _norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with groups of eight channels, or of the next larger number that divides the channels."""
    groups = next(groups for groups in range(max(channels // 8, 1), 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


class ResidualBlock(nn.Module):
    """Maps (B, C, H, W) to the same shape; initially near the identity.

    Args:
        channels: C.
        activation: a class of :mod:`torch.nn`.
        dropout: the fraction of feature maps that are set to zero in training.
    """

    def __init__(self, channels: int, activation: str, dropout: float) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        self.layers = nn.Sequential(
            *(_norm(channels), make_activation(activation), nn.Conv2d(channels, channels, 3, padding=1)),
            *(_norm(channels), make_activation(activation), nn.Dropout2d(dropout), last),
        )
        with torch.no_grad():
            last.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Upsample(nn.Module):
    """Nearest-neighbour interpolation to a given size, then a convolution."""

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(F.interpolate(x, size=self.size, mode="nearest"))


def _sizes(image_shape: Sequence[int], stages: int) -> list[tuple[int, int]]:
    """(H, W) of the image, and after each stage, which halves them and rounds up."""
    sizes = [(image_shape[1], image_shape[2])]
    for _ in range(stages):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


class ResNetEncoder(nn.Module):
    """Stages that halve the size: each is a strided convolution and residual blocks.

    Args:
        image_shape: (C, H, W).
        channels: the channels of each stage.
        blocks: residual blocks per stage.
        activation: a class of :mod:`torch.nn`.
        dropout: see :class:`ResidualBlock`.

    Raises:
        ValueError: a value is impossible.
    """

    @checked
    def __init__(
        self,
        image_shape: ImageShape,
        channels: Channels = (32, 64),
        blocks: NonNegativeInt = 2,
        activation: str = "SiLU",
        dropout: FractionOrZero = 0.0,
    ) -> None:
        super().__init__()
        inputs = image_shape[0]
        layers: list[nn.Module] = []
        for outputs in channels:
            layers.append(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1))
            layers += [ResidualBlock(outputs, activation, dropout) for _ in range(blocks)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, _norm(inputs), make_activation(activation))
        height, width = _sizes(image_shape, len(channels))[-1]
        self.out_features = inputs * height * width

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten(1)


class ResNetDecoder(nn.Module):
    """The encoder's stages in reverse, from a linear layer up to the image's size.

    Args:
        in_features: the size of a latent vector.
        image_shape: (C, H, W) of the outputs.
        channels: the channels of each stage, in the encoder's order: from the image to the latents.
        blocks: residual blocks per stage.
        activation: a class of :mod:`torch.nn`.
        dropout: see :class:`ResidualBlock`.

    Raises:
        ValueError: a value is impossible.
    """

    @checked
    def __init__(
        self,
        in_features: int,
        image_shape: ImageShape,
        channels: Channels = (32, 64),
        blocks: NonNegativeInt = 2,
        activation: str = "SiLU",
        dropout: FractionOrZero = 0.0,
    ) -> None:
        super().__init__()
        sizes = _sizes(image_shape, len(channels))
        self.first = (channels[-1], *sizes[-1])
        self.stem = nn.Linear(in_features, channels[-1] * sizes[-1][0] * sizes[-1][1])
        inputs = channels[-1]
        layers: list[nn.Module] = []
        for outputs, size in zip([*reversed(channels[:-1]), channels[0]], reversed(sizes[:-1]), strict=True):
            layers += [ResidualBlock(inputs, activation, dropout) for _ in range(blocks)]
            layers.append(_Upsample(inputs, outputs, size))
            inputs = outputs
        last = nn.Conv2d(inputs, image_shape[0], 3, padding=1)
        self.layers = nn.Sequential(*layers, _norm(inputs), make_activation(activation), last)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self.stem(z).unflatten(1, self.first))
