"""Parts that the network families share: activations by name, stacks of dense layers, initialisation."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from vaelab.runtime.validation import PositiveInt, checked


def activation(name: str) -> nn.Module:
    """The activation with the given class name in :mod:`torch.nn`: ``ReLU``, ``SiLU``, ``Tanh``, ``Identity``, ...

    Raises:
        ValueError: there is no such activation.
    """
    kind = getattr(nn, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and (kind is nn.Identity or kind.__module__ == "torch.nn.modules.activation")):
        raise ValueError(f"unknown activation {name!r}: write the name of its class in torch.nn, e.g. ReLU, SiLU, Tanh")
    return kind()


def glorot(module: nn.Module) -> None:
    """Initialises a layer as Keras and MATLAB do: uniform weights (Glorot and Bengio 2010), biases zero.

    It does not change modules that are neither dense nor convolutional. Apply it to every module of a network.
    """
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@checked
def dense(sizes: Sequence[PositiveInt], activation_name: str) -> nn.Sequential:
    """Linear layers from ``sizes[0]`` features to ``sizes[-1]``, each followed by the activation.

    Raises:
        ValueError: a size is not a positive integer.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation(activation_name)]
    return nn.Sequential(*layers)
