"""Parts of torch's tracing that are not public: decompositions of operations, and a module without some of its parts."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def decompositions(operations: Sequence[Any]) -> dict[Any, Callable[..., Any]]:
    """How torch composes these operations of simpler ones, for ``ExportedProgram.run_decompositions``."""
    return dict(torch._decomp.get_decompositions(operations))


def operation_name(target: Any) -> str:
    """The name of the operation of a node of a graph, such as ``convolution``."""
    return str(target).split(".")[1] if isinstance(target, torch._ops.OpOverload) else str(target.__name__)


def without(module: M, *names: str) -> M:
    """The same module, with the same weights, but without some of its parts.

    An exporter writes whatever a module has. ``nn.Module`` cannot be copied without its parts by a public function.
    """
    rest = copy.copy(module)
    rest._modules = {name: part for name, part in module._modules.items() if name not in names}
    return rest
