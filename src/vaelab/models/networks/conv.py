"""Convolutional networks: strided convolutions down, transposed convolutions up.

Two classes cover the plain convolutional VAEs of the tutorials. Channels, kernels, strides, padding and the stem are
parameters, so a tutorial's network is a YAML file.

Padding, for an image side n, a kernel k and a stride s:

- ``half``: k // 2 pixels on both sides, as usual in torch. The output has ceil(n / s) pixels (odd kernels).
- ``same``: as few pixels as give an output of ceil(n / s) pixels; an odd one is at the end, as in TensorFlow, Keras and
  MATLAB. A transposed convolution has n * s pixels.
- ``valid``: none. The output has floor((n - k) / s) + 1 pixels, and that of a transposed convolution (n - 1) * s + k.

A transposed convolution of :class:`ConvDecoder` is cropped further, to the size that the next layer needs.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vaelab.models.networks.layers import activation as make_activation
from vaelab.models.networks.layers import dense
from vaelab.runtime.validation import ImageShape, PositiveInt, checked

Padding = Literal["half", "same", "valid"]


def _per_layer(values: int | Sequence[int], layers: int, what: str) -> list[int]:
    """A list of one value per layer, from such a list or from one value for all layers."""
    spread = list(values) if isinstance(values, Sequence) else [values] * layers
    if len(spread) != layers:
        raise ValueError(f"{what} has {len(spread)} values for {layers} layers: {spread}")
    return spread


class SamePad2d(nn.Module):
    """Pads images (B, C, H, W) with zeros as TensorFlow's "same" does, for one kernel and stride."""

    def __init__(self, size: tuple[int, int], kernel: int, stride: int) -> None:
        super().__init__()
        self.padding: list[int] = []
        for side in reversed(size):  # F.pad begins with the last dimension
            total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            self.padding += [total // 2, total - total // 2]

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding)


class TransposedConv2d(nn.ConvTranspose2d):
    """A transposed convolution that adds its bias after cropping, in a separate operation.

    oneDNN has no fast kernel for most transposed convolutions with a bias. On a CPU, a forward pass with it takes three
    times as long in 32 bits, and up to twenty times as long in bfloat16.
    """

    out_size: tuple[int, int] | None = None  # (H, W), cropped at the end

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        how: tuple[Any, ...] = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        x = F.conv_transpose2d(x, self.weight, None, *how)
        if self.out_size is not None:
            x = x[..., : self.out_size[0], : self.out_size[1]]
        return x if self.bias is None else x + self.bias.to(x.dtype).view(-1, 1, 1)


class Upsample2d(nn.Module):
    """A transposed convolution from feature maps of one size to another, exactly.

    Args:
        in_channels, out_channels, kernel, stride: the parameters of the convolution.
        in_size, out_size: (H, W) before and after; the uncropped output must be at least ``out_size``.
        padding: where surplus pixels are cropped: half of them at each edge, an odd one at the beginning (``half``,
            strides above 1) or at the end (``same``); or all of them at the end (``valid``).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        in_size: tuple[int, int],
        out_size: tuple[int, int],
        padding: Padding,
    ) -> None:
        super().__init__()
        surplus = [(i - 1) * stride + kernel - o for i, o in zip(in_size, out_size, strict=True)]
        if min(surplus) < 0:
            raise ValueError(
                f"a transposed convolution with kernel {kernel} and stride {stride} leaves gaps between {in_size} and "
                f"{out_size}: use a kernel of at least {stride}"
            )
        # torch crops `padding` pixels at both edges and restores `output_padding` pixels at the end. It cannot crop
        # more at the end than at the beginning: those pixels are cropped afterwards.
        share = {"half": lambda s: math.ceil(s / 2), "same": lambda s: s // 2, "valid": lambda s: 0}[padding]
        first = [share(s) for s in surplus]
        back = [max(2 * f - s, 0) for f, s in zip(first, surplus, strict=True)]
        for i in (0, 1):
            if back[i] >= stride:  # torch raises an error for this
                first[i], back[i] = first[i] - 1, 0
        self.convolution = TransposedConv2d(
            in_channels, out_channels, kernel, stride, padding=(first[0], first[1]), output_padding=(back[0], back[1])
        )
        self.convolution.out_size = out_size

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x)


class ConvEncoder(nn.Module):
    """Strided convolutions, then dense layers.

    Args:
        image_shape: (C, H, W).
        channels: output channels of each convolution.
        kernel_sizes: the kernel size of each convolution, or one for all.
        strides: the stride of each convolution, or one for all.
        padding: ``half``, ``same`` or ``valid``, see the module's description.
        hidden_sizes: widths of the dense layers after the convolutions; may be empty.
        activation: a class of :mod:`torch.nn`, after every layer.

    Raises:
        ValueError: the image is too small for these convolutions, or the lists have different lengths.
    """

    @checked
    def __init__(
        self,
        image_shape: ImageShape,
        channels: Sequence[PositiveInt] = (32, 64),
        kernel_sizes: PositiveInt | Sequence[PositiveInt] = 3,
        strides: PositiveInt | Sequence[PositiveInt] = 2,
        padding: Padding = "half",
        hidden_sizes: Sequence[PositiveInt] = (),
        activation: str = "ReLU",
    ) -> None:
        super().__init__()
        channels = _per_layer(channels, len(channels), "channels")
        kernels = _per_layer(kernel_sizes, len(channels), "kernel_sizes")
        steps = _per_layer(strides, len(channels), "strides")
        inputs, *size = image_shape
        layers: list[nn.Module] = []
        for outputs, kernel, stride in zip(channels, kernels, steps, strict=True):
            if padding == "same":
                layers.append(SamePad2d((size[0], size[1]), kernel, stride))
                size = [math.ceil(side / stride) for side in size]
            else:
                margin = kernel // 2 if padding == "half" else 0
                size = [(side + 2 * margin - kernel) // stride + 1 for side in size]
            if min(size) < 1:
                raise ValueError(
                    f"images of {image_shape[1]}x{image_shape[2]} are too small for {len(channels)} convolutions with "
                    f"kernels {kernels}, strides {steps} and {padding} padding"
                )
            layers.append(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2 if padding == "half" else 0))
            layers.append(make_activation(activation))
            inputs = outputs
        sizes = [inputs * size[0] * size[1], *hidden_sizes]
        self.out_features = sizes[-1]
        self.convolutions = nn.Sequential(*layers)
        self.dense = dense(sizes, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.convolutions(x).flatten(1))


class ConvDecoder(nn.Module):
    """A stem from the latent vector to a first feature map, then transposed convolutions up to the image.

    Sizes are computed backwards from the image, so that the outputs have exactly the image's size. With ``half`` or
    ``same`` padding, the first map has ceil(side / product of strides) pixels per side.

    Args:
        in_features: the size of a latent vector.
        image_shape: (C, H, W) of the outputs.
        hidden_sizes: widths of the dense layers before the stem; may be empty.
        stem: the layer that computes the first map. ``dense``: a linear layer. ``transposed``: a transposed convolution
            of a 1x1 map, which is a linear layer with one bias per channel.
        stem_channels: the channels of the first map.
        stem_activation: the activation after the stem, a class of :mod:`torch.nn`; ``Identity`` for none.
        channels: output channels of each transposed convolution except the last, which has those of the image.
        kernel_sizes: the kernel size of each transposed convolution, including the last, or one for all.
        strides: the stride of each transposed convolution, including the last, or one for all.
        padding: ``half``, ``same`` or ``valid``, see the module's description.
        activation: the activation after every layer except the last, a class of :mod:`torch.nn`.

    Raises:
        ValueError: the lists have different lengths.
    """

    @checked
    def __init__(
        self,
        in_features: int,
        image_shape: ImageShape,
        hidden_sizes: Sequence[PositiveInt] = (),
        stem: Literal["dense", "transposed"] = "dense",
        stem_channels: PositiveInt = 64,
        stem_activation: str = "ReLU",
        channels: Sequence[PositiveInt] = (64, 32),
        kernel_sizes: PositiveInt | Sequence[PositiveInt] = 3,
        strides: PositiveInt | Sequence[PositiveInt] = (2, 2, 1),
        padding: Padding = "half",
        activation: str = "ReLU",
    ) -> None:
        super().__init__()
        outputs = [*_per_layer(channels, len(channels), "channels"), image_shape[0]]
        kernels = _per_layer(kernel_sizes, len(outputs), "kernel_sizes (one more than channels)")
        steps = _per_layer(strides, len(outputs), "strides (one more than channels)")
        sizes = [(image_shape[1], image_shape[2])]
        for kernel, stride in zip(reversed(kernels), reversed(steps), strict=True):
            covered = kernel if padding == "valid" else stride  # pixels per pixel of the map before
            height, width = (max(math.ceil((side - covered) / stride), 0) + 1 for side in sizes[0])
            sizes.insert(0, (height, width))

        self.dense = dense([in_features, *hidden_sizes], activation)
        features = hidden_sizes[-1] if hidden_sizes else in_features
        self.stem: nn.Module = (
            nn.Sequential(
                nn.Linear(features, stem_channels * sizes[0][0] * sizes[0][1]),
                nn.Unflatten(1, (stem_channels, *sizes[0])),
            )
            if stem == "dense"
            else nn.Sequential(nn.Unflatten(1, (features, 1, 1)), TransposedConv2d(features, stem_channels, sizes[0]))
        )
        layers: list[nn.Module] = [make_activation(stem_activation)]
        inputs = stem_channels
        for i, (out, kernel, stride) in enumerate(zip(outputs, kernels, steps, strict=True)):
            if i:
                layers.append(make_activation(activation))
            layers.append(Upsample2d(inputs, out, kernel, stride, sizes[i], sizes[i + 1], padding))
            inputs = out
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.convolutions(self.stem(self.dense(z)))
