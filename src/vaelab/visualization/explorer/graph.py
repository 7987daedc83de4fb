"""A decoder as a list of simple operations and one array of weights. ``decoder.js`` runs it in a browser.

``torch.export`` traces the mean of p(x|z) for any network and any likelihood. Few operations remain: values that depend
on weights only are computed here. All operations that only move numbers (slices, permutations, repeated pixels, ...)
become one operation, ``gather``.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vaelab.models.traceable import Decoder
from vaelab.models.vae import VAE
from vaelab.runtime.errors import UserError
from vaelab.runtime.workarounds.tracing import decompositions, operation_name

# Pointwise operations, with the names that torch and decoder.js use.
_UNARY = (
    *("abs", "ceil", "cos", "erf", "exp", "expm1", "floor", "log", "log1p", "logical_not", "neg", "reciprocal"),
    *("relu", "rsqrt", "sigmoid", "sign", "sin", "sqrt", "tanh"),
)
_BINARY = (
    *("add", "div", "eq", "ge", "gt", "le", "logical_and", "logical_or", "lt", "maximum", "minimum", "mul", "ne"),
    *("pow", "sub"),
)
_SAME = ("_to_copy", "alias", "clone", "detach", "squeeze", "unsqueeze", "view")
_MOVES = (
    *("_unsafe_index", "expand", "flip", "index", "index_select", "permute", "repeat", "select", "slice"),
    *("split_with_sizes", "upsample_nearest2d"),
)
_FILLED = ("full_like", "ones_like", "zeros_like")
# Core ATen operations that torch can decompose further.
_DECOMPOSED = ("_log_softmax", "_softmax", "elu", "gelu", "leaky_relu")


@dataclass
class Graph:
    """Operations in the order of computation.

    Values are numbered. Inputs come first, from 0, followed by the outputs of the nodes. Constants are -1, -2, ...

    Attributes:
        inputs: the shape of z, (1, latent_dim), and of a conditional model's weights of classes, (1, classes).
        constants: the shape of each, and the index of its first number in ``weights``.
        nodes: operation, numbers of its operands, settings, shape of its output.
        output: the number of the image (1, C, H, W).
        weights: all constants, concatenated, float32.
    """

    inputs: list[list[int]] = field(default_factory=list)
    constants: list[tuple[list[int], int]] = field(default_factory=list)
    nodes: list[tuple[str, list[int], dict[str, Any], list[int]]] = field(default_factory=list)
    output: int = 0
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def as_json(self) -> dict[str, Any]:
        """The graph without its weights."""
        return {"inputs": self.inputs, "constants": self.constants, "nodes": self.nodes, "output": self.output}


def trace(vae: VAE) -> Graph:
    """The graph from a latent vector, and the class if the model is conditional, to the mean of p(x|z).

    Args:
        vae: in evaluation mode, on the CPU, in float32.

    Raises:
        UserError: the decoder or the likelihood uses an operation that ``decoder.js`` lacks.
    """
    sizes = [vae.latent_dim, *([] if vae.classes is None else [vae.classes])]
    return translated(Decoder(vae), tuple(torch.zeros(1, size) for size in sizes))


@torch.no_grad()
def translated(module: nn.Module, examples: tuple[Tensor, ...]) -> Graph:
    """The graph of a module, for inputs with the shapes of the examples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own internals
        program = torch.export.export(module, examples, strict=False)
        table = torch.export.default_decompositions()
        operations = [getattr(torch.ops.aten, name) for name in _DECOMPOSED if hasattr(torch.ops.aten, name)]
        table.update(decompositions(operations))
        return _Translation(program.run_decompositions(table)).graph


@dataclass(eq=False)
class _Value:
    """The value of a node of the traced program: a constant, or the number of a value of the graph."""

    shape: list[int]
    constant: Tensor | None = None
    number: int = 0


class _Translation:
    """Translates a traced program into a graph.

    Args:
        program: of core ATen operations.
    """

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.graph = Graph()
        self._weights: list[np.ndarray] = []
        self._numbers: dict[tuple[Any, ...], int] = {}  # of the constants in the graph
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        names |= signature.inputs_to_lifted_tensor_constants
        tensors = {**program.state_dict, **program.constants}
        values: dict[torch.fx.Node, Any] = {}
        for node in program.graph.nodes:
            if node.op == "call_function":
                values[node] = self._translated(node, values)
            elif node.op == "output":
                image = values[node.args[0][0]]
                if image.constant is not None:
                    raise UserError("there is nothing to explore: the decoder's images do not depend on its latents")
                self.graph.output = image.number
            elif node.name in names:
                values[node] = _constant(tensors[names[node.name]])
            else:
                values[node] = _Value(list(node.meta["val"].shape), None, len(self.graph.inputs))
                self.graph.inputs.append(values[node].shape)
        self.graph.weights = np.concatenate([np.zeros(0, np.float32), *self._weights])

    def _translated(self, node: torch.fx.Node, values: dict[torch.fx.Node, Any]) -> Any:
        """The value of a node: one, several, or ``None`` for an assertion."""
        target: Any = node.target
        name = operation_name(target)
        if name.startswith("_assert"):
            return None
        args: Any = torch.fx.map_arg(node.args, values.__getitem__)
        kwargs: Any = torch.fx.map_arg(node.kwargs, values.__getitem__)
        if name == "getitem":
            return args[0][args[1]]
        outputs = [part for part in _flat(node.meta["val"]) if isinstance(part, Tensor)]
        shape = list(outputs[0].shape)
        if name in _FILLED:
            args = (_constant(torch.empty(shape)), *args[1:])
        operands = [value for value in _flat([*args, *kwargs.values()]) if isinstance(value, _Value)]
        if all(value.constant is not None for value in operands):
            return _applied(target, args, kwargs, {}, _constant)
        if any(part.dtype not in (torch.float32, torch.bool) for part in outputs):
            raise _unknown(f"{name} to {outputs[0].dtype}")
        translate: Callable[..., Any] | None = getattr(self, f"_{name.lstrip('_')}", None)
        if translate is not None:
            return translate(shape, *args, **kwargs)
        if name in _SAME:
            return _Value(shape, None, args[0].number)
        if name in _MOVES:
            return self._moved(target, args, kwargs)
        if len(args) == {**dict.fromkeys(_UNARY, 1), **dict.fromkeys(_BINARY, 2)}.get(name) and not kwargs:
            return self._pointwise(name, shape, *args)
        raise _unknown(name)

    def _node(self, name: str, shape: list[int], operands: Sequence[_Value], **settings: Any) -> _Value:
        numbers = [self._number(value) for value in operands]
        self.graph.nodes.append((name, numbers, settings, shape))
        return _Value(shape, None, len(self.graph.inputs) + len(self.graph.nodes) - 1)

    def _number(self, value: _Value) -> int:
        if value.constant is None:
            return value.number
        array = value.constant.detach().float().contiguous().numpy()
        # Equal numbers share one constant, because a likelihood may use a number hundreds of times.
        key = (array.item(),) if array.size == 1 else (id(value),)
        if key not in self._numbers:
            self._numbers[key] = -1 - len(self.graph.constants)
            self.graph.constants.append((value.shape, sum(part.size for part in self._weights)))
            self._weights.append(array.ravel())
        return self._numbers[key]

    def _pointwise(self, name: str, shape: list[int], *operands: Any) -> _Value:
        """A pointwise operation; its operands are expanded to one shape, except single numbers."""
        return self._node(name, shape, [self._spread(operand, shape) for operand in operands])

    def _spread(self, operand: Any, shape: list[int]) -> _Value:
        value = operand if isinstance(operand, _Value) else _constant(torch.tensor(float(operand)))
        if value.constant is not None and bool((value.constant == value.constant.flatten()[0]).all()):
            return _constant(value.constant.flatten()[0])
        if value.shape == shape or math.prod(value.shape) == 1:
            return value
        return self._moved(torch.ops.aten.expand.default, (value, shape), {})

    def _moved(self, target: Any, args: Any, kwargs: Any) -> Any:
        """An operation that only moves numbers, as ``gather``: it is applied to the indices of the numbers."""
        source = next(value for value in _flat([*args, *kwargs.values()]) if isinstance(value, _Value))
        places = torch.arange(math.prod(source.shape), dtype=torch.float64).view(source.shape)
        return _applied(
            target, args, kwargs, {source: places}, lambda moved: self._gathered(operation_name(target), source, moved)
        )

    def _gathered(self, name: str, source: _Value, places: Tensor) -> _Value:
        """Copies numbers from source indices, which must be a sum of one term per dimension."""
        places = places.long()
        origin = int(places.flatten()[0])
        tables = []
        total = torch.full_like(places, origin)
        for dim, size in enumerate(places.shape):
            table = places[tuple(slice(None) if d == dim else 0 for d in range(places.ndim))] - origin
            total += table.view([size if d == dim else 1 for d in range(places.ndim)])
            tables.append(table.tolist())
        if not torch.equal(total, places):
            raise _unknown(f"{name} in this form")
        return self._node("gather", list(places.shape), [source], tables=tables, origin=origin, fill=0.0)

    def _constant_pad_nd(self, shape: list[int], x: _Value, pad: Sequence[int], value: float = 0.0) -> _Value:
        before = [0] * (len(shape) - len(pad) // 2) + list(pad[-2::-2])  # pairs, from the last dimension on
        tables = []
        for dim, size in enumerate(x.shape):
            stride = math.prod(x.shape[dim + 1 :])
            places = range(-before[dim], shape[dim] - before[dim])
            tables.append([place * stride if 0 <= place < size else None for place in places])
        return self._node("gather", shape, [x], tables=tables, origin=0, fill=float(value))

    def _cat(self, shape: list[int], parts: Sequence[_Value], dim: int = 0) -> _Value:
        return self._node("cat", shape, parts, rows=math.prod(shape[: dim % len(shape)]))

    def _where(self, shape: list[int], condition: _Value, x: Any, other: Any) -> _Value:
        return self._pointwise("where", shape, condition, x, other)

    def _clamp(self, shape: list[int], x: _Value, low: Any = None, high: Any = None) -> _Value:
        for name, bound in (("maximum", low), ("minimum", high)):
            x = x if bound is None else self._pointwise(name, shape, x, bound)
        return x

    def _hardtanh(self, shape: list[int], x: _Value, low: float = -1.0, high: float = 1.0) -> _Value:
        return self._clamp(shape, x, low, high)

    def _rrelu_with_noise_functional(
        self, shape: list[int], x: _Value, noise: _Value, lower: float = 1 / 8, upper: float = 1 / 3
    ) -> list[_Value]:
        slope = self._pointwise("mul", shape, x, (lower + upper) / 2)
        return [self._where(shape, self._pointwise("gt", shape, x, 0), x, slope)]

    def _reduced(self, name: str, shape: list[int], x: _Value, dims: Any) -> _Value:
        places = sorted(dim % len(x.shape) for dim in dims or range(len(x.shape)))
        first, last = places[0], places[-1]
        if len(places) != last - first + 1:
            raise _unknown(f"{name} over dimensions {places}")
        sizes = {"size": math.prod(x.shape[first : last + 1]), "inner": math.prod(x.shape[last + 1 :])}
        return self._node(name, shape, [x], **sizes)

    def _sum(self, shape: list[int], x: _Value, dims: Any = None, keep: bool = False) -> _Value:
        return self._reduced("sum", shape, x, dims)

    def _mean(self, shape: list[int], x: _Value, dims: Any = None, keep: bool = False) -> _Value:
        total = self._reduced("sum", shape, x, dims)
        return self._pointwise("div", shape, total, math.prod(x.shape) / math.prod(shape))

    def _amax(self, shape: list[int], x: _Value, dims: Any = None, keep: bool = False) -> _Value:
        return self._reduced("amax", shape, x, dims)

    def _mm(self, shape: list[int], x: _Value, weight: _Value) -> _Value:
        return self._node("matmul", shape, [x, weight])

    def _addmm(self, shape: list[int], bias: _Value, x: _Value, weight: _Value) -> _Value:
        return self._pointwise("add", shape, self._mm(shape, x, weight), bias)

    def _convolution(
        self,
        shape: list[int],
        x: _Value,
        weight: _Value,
        bias: _Value | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        transposed: bool,
        output_padding: list[int],  # the shape includes it
        groups: int,
    ) -> _Value:
        if len(shape) != 4 or weight.constant is None:
            raise _unknown("convolution of this kind")
        operands = [x, weight, *([] if bias is None else [bias])]
        settings: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        settings |= {"input": x.shape, "kernel": weight.shape}
        return self._node("transposed" if transposed else "convolution", shape, operands, **settings)

    def _native_group_norm(
        self,
        shape: list[int],
        x: _Value,
        weight: _Value | None,
        bias: _Value | None,
        count: int,
        channels: int,
        pixels: int,
        groups: int,
        eps: float,
    ) -> list[_Value]:
        ones, zeros = _constant(torch.ones(channels)), _constant(torch.zeros(channels))
        return [self._node("norm", shape, [x, weight or ones, bias or zeros], groups=groups, eps=eps)]

    def _native_batch_norm_legit_no_training(
        self,
        shape: list[int],
        x: _Value,
        weight: _Value | None,
        bias: _Value | None,
        mean: _Value,
        variance: _Value,
        momentum: float,
        eps: float,
    ) -> list[_Value]:
        assert mean.constant is not None
        assert variance.constant is not None
        factor = (variance.constant + eps).rsqrt()
        if weight is not None and weight.constant is not None:
            factor = factor * weight.constant
        shift = -mean.constant * factor
        if bias is not None and bias.constant is not None:
            shift = shift + bias.constant
        each = [-1, *[1] * (len(shape) - 2)]
        scaled = self._pointwise("mul", shape, x, _constant(factor.view(each)))
        return [self._pointwise("add", shape, scaled, _constant(shift.view(each)))]


def _flat(values: Any) -> Iterator[Any]:
    """The elements of nested lists."""
    for value in values if isinstance(values, list | tuple) else [values]:
        yield from _flat(value) if isinstance(value, list | tuple) else [value]


def _constant(value: Tensor) -> _Value:
    return _Value(list(value.shape), value.detach())


def _applied(
    target: Any, args: Any, kwargs: Any, given: dict[_Value, Tensor], result: Callable[[Tensor], _Value]
) -> Any:
    """Applies an operation to its constants and to given tensors, and converts its results to values."""

    def tensor(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [tensor(part) for part in value]
        return given.get(value, value.constant) if isinstance(value, _Value) else value

    results = target(*tensor(args), **{name: tensor(value) for name, value in kwargs.items()})
    return [result(part) for part in results] if isinstance(results, list | tuple) else result(results)


def _unknown(operation: str) -> UserError:
    return UserError(
        f"this model cannot be explored: its decoder or likelihood uses {operation}, which explorer/decoder.js lacks"
    )
