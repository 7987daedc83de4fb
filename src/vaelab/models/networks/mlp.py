"""Multilayer perceptrons, the networks of the original paper (arXiv 1312.6114, appendix C)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vaelab.models.networks.layers import dense
from vaelab.runtime.validation import ImageShape, PositiveInt, checked


class MLPEncoder(nn.Module):
    """Dense layers from the pixels of an image to features.

    Args:
        image_shape: (C, H, W).
        hidden_sizes: the layers' widths; the last one is ``out_features``.
        activation: a class of :mod:`torch.nn`.
    """

    @checked
    def __init__(
        self, image_shape: ImageShape, hidden_sizes: Sequence[PositiveInt] = (400,), activation: str = "ReLU"
    ) -> None:
        super().__init__()
        sizes = [math.prod(image_shape), *hidden_sizes]
        self.out_features = sizes[-1]
        self.layers = dense(sizes, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


class MLPDecoder(nn.Module):
    """Dense layers from a latent vector to one output per pixel.

    Args:
        in_features: the size of a latent vector.
        image_shape: (C, H, W) of the outputs.
        hidden_sizes: the layers' widths, from the latents on.
        activation: a class of :mod:`torch.nn`.
    """

    @checked
    def __init__(
        self,
        in_features: int,
        image_shape: ImageShape,
        hidden_sizes: Sequence[PositiveInt] = (400,),
        activation: str = "ReLU",
    ) -> None:
        super().__init__()
        sizes = [in_features, *hidden_sizes]
        self.image_shape = tuple(image_shape)
        self.layers = dense(sizes, activation)
        self.outputs = nn.Linear(sizes[-1], math.prod(image_shape))

    def forward(self, z: Tensor) -> Tensor:
        return self.outputs(self.layers(z)).unflatten(1, self.image_shape)
