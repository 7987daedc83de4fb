"""Parts of torch's tracing that are not public: decompositions of operations, and modules without some submodules."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def decompositions(operations: Sequence[Any]) -> dict[Any, Callable[..., Any]]:
    """Decompositions of these operations into simpler ones, for ``ExportedProgram.run_decompositions``."""
    return dict(torch._decomp.get_decompositions(operations))


def operation_name(target: Any) -> str:
    """The name of the operation of a node of a graph, such as ``convolution``."""
    return str(target).split(".")[1] if isinstance(target, torch._ops.OpOverload) else str(target.__name__)


def without(module: M, *names: str) -> M:
    """A copy of a module with the same weights, without some of its submodules.

    An exporter writes all submodules. ``nn.Module`` has no public function for such a copy.
    """
    rest = copy.copy(module)
    rest._modules = {name: part for name, part in module._modules.items() if name not in names}
    return rest
