"""Every network works for every image size and number of features, and trains all of its parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaelab.models.networks.conv import ConvDecoder, ConvEncoder, TransposedConv2d
from vaelab.models.networks.layers import activation
from vaelab.models.networks.mlp import MLPDecoder, MLPEncoder
from vaelab.models.networks.resnet import ResNetDecoder, ResNetEncoder

ENCODERS: dict[str, Callable[..., Any]] = {
    "mlp": MLPEncoder,
    "mlp without layers": partial(MLPEncoder, hidden_sizes=[]),
    "conv": partial(ConvEncoder, hidden_sizes=[8]),
    "conv same": partial(ConvEncoder, padding="same", strides=[2, 3], channels=[4, 8]),
    "conv valid": partial(ConvEncoder, padding="valid", channels=[4], kernel_sizes=2),
    "resnet": ResNetEncoder,
    "resnet odd": partial(ResNetEncoder, channels=[12, 7, 9], blocks=1),
}
DECODERS: dict[str, Callable[..., Any]] = {
    "mlp": MLPDecoder,
    "mlp without layers": partial(MLPDecoder, hidden_sizes=[]),
    "conv": ConvDecoder,
    "conv cheap": partial(ConvDecoder, hidden_sizes=[8], channels=[4], strides=2, kernel_sizes=4),
    "conv same": partial(ConvDecoder, padding="same"),
    "conv even kernels": partial(ConvDecoder, kernel_sizes=[4, 2, 4], strides=[1, 2, 1]),
    "conv transposed stem": partial(ConvDecoder, stem="transposed", padding="same"),
    "conv valid": partial(ConvDecoder, padding="valid", channels=[4], strides=[1, 2], kernel_sizes=[3, 4]),
    "conv odd": partial(ConvDecoder, channels=[4, 4], strides=[3, 2, 1], kernel_sizes=[5, 2, 3]),
    "resnet": ResNetDecoder,
    "resnet odd": partial(ResNetDecoder, channels=[12, 7, 9], blocks=1),
}
SHAPES = [(1, 28, 28), (3, 32, 32), (2, 7, 12), (1, 5, 5), (4, 13, 9)]


def _all_trained(network: nn.Module, outputs: Tensor) -> None:
    outputs.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name: str, shape: tuple[int, int, int]) -> None:
    encoder = ENCODERS[name](image_shape=shape)
    features = encoder(torch.randn(3, *shape))
    assert features.shape == (3, encoder.out_features)
    if name != "mlp without layers":
        _all_trained(encoder, features)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("latent_dim", [1, 17])
def test_decoders(name: str, shape: tuple[int, int, int], latent_dim: int) -> None:
    decoder = DECODERS[name](in_features=latent_dim, image_shape=shape)
    outputs = decoder(torch.randn(3, latent_dim))
    assert outputs.shape == (3, *shape)
    _all_trained(decoder, outputs)


def test_valid_padding_counts_pixels_as_tensorflow_does() -> None:
    """28 - 13 - 6: the encoder of the TensorFlow tutorial flattens 6 * 6 * 64 features."""
    assert ConvEncoder((1, 28, 28), padding="valid").out_features == 6 * 6 * 64


def test_same_padding_is_tensorflows() -> None:
    """For an even side, a kernel of 3 and a stride of 2, TensorFlow pads one pixel at the end and none before."""
    encoder = ConvEncoder((1, 6, 6), channels=[1], padding="same", activation="Identity")
    convolution = encoder.convolutions[1]
    assert isinstance(convolution, nn.Conv2d)
    x = torch.randn(1, 1, 6, 6)
    expected = F.conv2d(F.pad(x, [0, 1, 0, 1]), convolution.weight, convolution.bias, stride=2)
    torch.testing.assert_close(encoder(x), expected.flatten(1))


def test_same_upsampling_is_the_adjoint_of_same_downsampling() -> None:
    """As a transposed convolution is defined: <conv(x), y> = <x, conv^T(y)>, with the same kernel and padding."""
    down = ConvEncoder((1, 8, 6), channels=[1], padding="same", activation="Identity").convolutions
    up = ConvDecoder(
        1, (1, 8, 6), stem_channels=1, channels=[], strides=2, kernel_sizes=3, padding="same"
    ).convolutions[1]
    assert isinstance(down[1], nn.Conv2d)
    with torch.no_grad():
        down[1].bias.zero_()  # type: ignore[union-attr]
        up.convolution.bias.zero_()  # type: ignore[union-attr, operator]
        up.convolution.weight.copy_(down[1].weight)  # type: ignore[union-attr, operator]
    x, y = torch.randn(1, 1, 8, 6), torch.randn(1, 1, 4, 3)
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum())


def test_impossible_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        ConvEncoder((1, 4, 4), channels=[8, 8, 8], padding="valid")
    with pytest.raises(ValueError, match="leaves gaps"):
        ConvDecoder(2, (1, 28, 28), kernel_sizes=1)
    with pytest.raises(ValueError, match="2 values for 3 layers"):
        ConvDecoder(2, (1, 28, 28), strides=[2, 2])
    with pytest.raises(ValueError, match="padding=full: it must be half, same or valid"):
        ConvEncoder((1, 28, 28), padding="full")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive integer"):
        MLPEncoder((1, 28, 28), hidden_sizes=[0])
    for name in ("relu", "Linear", "functional", ""):
        with pytest.raises(ValueError, match="unknown activation"):
            activation(name)


def test_valid_upsampling_mirrors_valid_downsampling() -> None:
    """The Wolfram project's way: 28, 13, 11, 9 pixels down, and the same sizes up."""
    decoder = ConvDecoder(8, (1, 28, 28), kernel_sizes=[3, 3, 4], strides=[1, 1, 2], padding="valid")
    sizes = []
    z = decoder.stem(decoder.dense(torch.randn(1, 8)))
    for layer in decoder.convolutions:
        sizes.append(z.shape[-1])
        z = layer(z)
    assert sorted(set(sizes)) == [9, 11, 13]
    assert z.shape[-1] == 28


@pytest.mark.parametrize("settings", [{}, {"padding": 1, "output_padding": 1}])
def test_a_bias_that_is_added_afterwards_is_the_same(settings: dict[str, int]) -> None:
    theirs = nn.ConvTranspose2d(3, 4, 3, 2, **settings)  # type: ignore[arg-type]
    ours = TransposedConv2d(3, 4, 3, 2, **settings)  # type: ignore[arg-type]
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 5, 6)
    for module in (ours, theirs):
        module(x).square().mean().backward()
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    for ours_is, theirs_is in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert ours_is.grad is not None
        assert theirs_is.grad is not None
        assert torch.allclose(ours_is.grad, theirs_is.grad, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
    ours.out_size = (9, 8)
    assert torch.allclose(ours(x), theirs(x)[..., :9, :8], atol=1e-6)
