"""What the network families share: activations by name, stacks of dense layers, initialisation."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def activation(name: str) -> nn.Module:
    """The activation with the name of its class in :mod:`torch.nn`: ``ReLU``, ``SiLU``, ``Tanh``, ``Identity``, ...

    Raises:
        ValueError: there is no such activation.
    """
    kind = getattr(nn, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and (kind is nn.Identity or kind.__module__ == "torch.nn.modules.activation")):
        raise ValueError(f"unknown activation {name!r}: write the name of its class in torch.nn, e.g. ReLU, SiLU, Tanh")
    return kind()


def glorot(module: nn.Module) -> None:
    """Initialises a layer as Keras and MATLAB do: uniform weights (Glorot and Bengio 2010), biases zero.

    To be applied to every module of a network; those that are neither dense nor convolutional are left alone.
    """
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def positive(values: Sequence[int], what: str) -> None:
    """Refuses what are no sizes.

    Raises:
        ValueError: a value is not a positive integer, or these are no list.
    """
    if not isinstance(values, list | tuple):
        raise ValueError(f"{what} must be a list of positive integers such as [64, 64], not {values!r}")
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{what} must be positive integers, not {value!r}")


def dense(sizes: Sequence[int], activation_name: str) -> nn.Sequential:
    """Linear layers from ``sizes[0]`` features to ``sizes[-1]``, each followed by the activation.

    Raises:
        ValueError: a size is not a positive integer.
    """
    positive(sizes, "layer sizes")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation(activation_name)]
    return nn.Sequential(*layers)
