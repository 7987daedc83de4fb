"""What a checkpoint may hold, and what its configuration may build.

A checkpoint may be somebody else's. It is checked before it is used:

- its configuration is a tree of plain values, with no more nodes than its file has bytes;
- a part (``_target_``) stands only where a constructor is annotated with one, and is of the annotated kind: an
  :class:`~vaelab.objectives.Objective`, a :class:`~vaelab.models.likelihoods.Likelihood`, a factory of modules, a
  :class:`~vaelab.data.source.Source`. Every place and every kind is therefore written once, in the constructor of the
  part around it. :func:`named` is the only place that decides which classes there are;
- its settings are keywords of the constructor, with values of the annotated types;
- its weights are real numbers, whose bytes are in the file;
- a model is never larger than the weights that are to be loaded into it.
"""

import importlib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FunctionType, NoneType, UnionType
from typing import Any, NamedTuple, Protocol, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from vaelab.runs.foreign_files import RefusedError, reason, shown
from vaelab.runtime.validation import kind_of

# Only modules of these packages define parts of models and of data sets.
_PACKAGES = ("vaelab.models", "vaelab.objectives", "vaelab.data")


# Settings outside the parts of the model and of the data set, as far as commands use them.
_KINDS: dict[str, type | UnionType] = {
    "data": dict,
    "found": dict,
    "trainer": dict,
    "latent_dim": int,
    "conditional": bool,
    "seed": int,
    "trainer.precision": str | int,
    "trainer.max_epochs": int,
    "trainer.max_steps": int,
}


LARGEST_RESULT = 10**9  # bytes of one tensor; 64 feature maps of a photograph of 1024 x 1024 take a quarter of it

_NOT_RESUMED = "holds no training that can be resumed"
_FUSED = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum"}  # states of torch's fused optimisers


class TooLargeError(Exception):
    """A model has more weights than it may have."""


def check_contents(contents: Any) -> dict[str, Any]:
    """The contents of a checkpoint, if they have the form that this project writes.

    Raises:
        RefusedError: with the reason.
    """
    if not (isinstance(contents, dict) and isinstance(contents.get("vaelab"), dict) and "state_dict" in contents):
        raise RefusedError("is not a checkpoint of this project: its configuration is missing")
    stored = contents["vaelab"]
    if type(stored.get("format")) is not int or stored["format"] != 1:
        raise RefusedError("was written by another version of this project, which this one cannot read")
    config = stored.get("config")
    if not (isinstance(config, dict) and isinstance(config.get("module"), dict)):
        raise RefusedError("is not a checkpoint of this project: its configuration is incomplete")
    choices = config.get("choices", {})
    if not isinstance(choices, dict) or not all(_is_name(text) for pair in choices.items() for text in pair):
        raise RefusedError(f"was refused: its configuration sets choices={shown(choices)}, which must be names")
    for place, kind in _KINDS.items():
        group, _, name = place.rpartition(".")
        value = ((config.get(group) or {}) if group else config).get(name)
        if value is not None and not isinstance(value, kind):
            raise RefusedError(
                f"was refused: its configuration sets {place}={shown(value)}, of another type than it has"
            )
    return contents


def _is_name(text: Any) -> bool:
    return text is None or (type(text) is str and text.isprintable())


def check_weights(weights: Any, most_bytes: int) -> None:
    """Refuses weights that are no dense tensors of real numbers, or that are larger than the file.

    Args:
        weights: by name.
        most_bytes: of all together.

    Raises:
        RefusedError: with the reason.
    """
    if not isinstance(weights, dict):
        raise RefusedError(f"was refused: its weights are a {type(weights).__name__}, no tensors by name")
    total = 0
    for name, value in weights.items():
        if not (type(name) is str and type(value) is Tensor and value.layout is torch.strided):
            raise RefusedError(f"was refused: its weight {shown(name)} is no dense tensor")
        if value.is_complex():
            raise RefusedError(f"was refused: its weight {shown(name)} holds complex numbers")
        total += value.numel() * value.element_size()
    if total > most_bytes:
        raise RefusedError(f"was refused: its weights claim to have {total:,} bytes, more than the file")


def check_training_state(contents: dict[str, Any], parameters: Sequence[Tensor]) -> None:
    """Refuses a checkpoint that holds no state of a training, or one that does not fit the weights.

    Fused optimisers trust the sizes of their states: a state that is too small would let them write into other memory.

    Args:
        contents: of the checkpoint.
        parameters: that the training optimises, in their order.

    Raises:
        RefusedError: with the reason.
    """
    stored, optimizers = contents["vaelab"], contents.get("optimizer_states")
    kinds: dict[str, tuple[Any, type]] = {
        "global_step": (contents.get("global_step"), int),
        "loops": (contents.get("loops"), dict),
        "callbacks": (contents.get("callbacks"), dict),
        "optimizer_states": (optimizers, list),
        "random_states": (stored.get("random_states"), list),
        "training_sums": (stored.get("training_sums", []), list),
        "skipped_steps": (stored.get("skipped_steps", 0), int),
    }
    for name, (value, kind) in kinds.items():
        if not isinstance(value, kind):
            raise RefusedError(f"{_NOT_RESUMED}: {name} is {shown(value)}")
    if not _is_counted(contents["loops"]) or not all(map(_is_random_state, stored["random_states"])):
        raise RefusedError(f"{_NOT_RESUMED}: its loops or random states are no numbers")
    for optimizer in optimizers or []:
        for number, state in _states_of(optimizer, len(parameters)):
            is_state = isinstance(state, dict) and type(number) is int and 0 <= number < len(parameters)
            if not is_state or not all(_fits(state[name], parameters[number]) for name in _FUSED & state.keys()):
                raise RefusedError(f"{_NOT_RESUMED}: its optimiser's state {shown(number)} does not fit the weights")


def _states_of(optimizer: Any, count: int) -> list[tuple[Any, Any]]:
    """The states of an optimiser by the numbers of their parameters, which must be in order."""
    try:
        numbers = [number for group in optimizer["param_groups"] for number in group["params"]]
        if numbers == list(range(count)):
            return list(optimizer["state"].items())
    except (AttributeError, IndexError, KeyError, TypeError):
        pass
    raise RefusedError(f"{_NOT_RESUMED}: its optimiser has other parameters than the model")


def _is_counted(node: Any) -> bool:
    """Whether all values of the loops are numbers, as Lightning counts them."""
    if isinstance(node, dict):
        return all(map(_is_counted, node.values()))
    return node is None or isinstance(node, int | float)


def _is_random_state(state: Any) -> bool:
    return isinstance(state, dict) and all(
        isinstance(value, Tensor) and value.dtype is torch.uint8 for value in state.values()
    )


def _fits(value: Any, parameter: Tensor) -> bool:
    """Whether a value has a number for each number of a parameter, without gaps and without numbers in common."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value is None
    expected = 1
    for step, size in sorted(zip(value.stride(), value.shape, strict=True)):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True


# --- parts -----------------------------------------------------------------------------------------------------------


def named(target: Any) -> Any:
    """The class or function of this name that a module of this package defines; ``None`` if there is none.

    A package may export what its own modules define. Functions and classes that a module only imports do not count, and
    neither do private ones.
    """
    home, _, name = target.rpartition(".") if type(target) is str else ("", "", "")
    if not home.startswith(tuple(f"{package}." for package in _PACKAGES)) and home not in _PACKAGES:
        return None
    if not all(part.isidentifier() for part in target.split(".")) or name.startswith("_"):
        return None
    try:
        part = getattr(importlib.import_module(home), name, None)
    except ImportError:
        return None
    origin = str(getattr(part, "__module__", None))
    return part if isinstance(part, type | FunctionType) and f"{origin}.".startswith(f"{home}.") else None


class _Place(NamedTuple):
    """The annotation of an argument that takes a part.

    Attributes:
        kind: the class of the part, or of what a factory returns; ``None`` for a function that returns nothing.
        is_factory: whether the constructor around it completes the call.
        takes: the annotations of the arguments that complete the call of such a function.
    """

    kind: type | None
    is_factory: bool
    takes: tuple[Any, ...] = ()

    @property
    def words(self) -> str:
        """The kind in a message."""
        return "function of a module" if self.kind is None else self.kind.__name__

    def accepts(self, part: Any) -> bool:
        """Whether a class or function is of this kind."""
        if self.kind is None:
            hints = get_type_hints(part) if isinstance(part, FunctionType) else {}
            return hints.pop("return", None) is NoneType and tuple(hints.values())[: len(self.takes)] == self.takes
        if not isinstance(part, type) or inspect.isabstract(part):
            return False
        if Protocol in self.kind.__bases__:
            methods = [name for name, value in vars(self.kind).items() if isinstance(value, FunctionType)]
            return all(callable(getattr(part, name, None)) for name in methods if not name.startswith("_"))
        return issubclass(part, self.kind)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _place_of(annotation: Any) -> _Place | None:
    """The place that an annotation describes; ``None`` if it describes plain values."""
    for option in _alternatives(annotation):
        if get_origin(option) is Callable:
            takes, returns = get_args(option)
            if isinstance(returns, type | None):
                return _Place(returns, True, tuple(takes) if isinstance(takes, list) else ())
        if isinstance(option, type) and (option is nn.Module or f"{option.__module__}.".startswith("vaelab.")):
            return _Place(option, is_factory=False)
    return None


def build(config: Any, kind: type, where: str) -> Any:
    """Builds a part of a configuration.

    Args:
        config: of the part, in plain containers.
        kind: a base class of the part, or a protocol.
        where: its place in the configuration, for messages.

    Raises:
        RefusedError: the configuration names something else than such a part, or a setting that it does not have.
        TooLargeError: see :func:`at_most`.
    """
    return _built(config, _Place(kind, is_factory=False), where)


def _built(config: Any, place: _Place, where: str) -> Any:
    if type(config) is not dict or "_target_" not in config:
        raise RefusedError(f"is not a checkpoint of this project: its configuration has no {where}")
    part = named(config["_target_"])
    if part is None or not place.accepts(part):
        raise RefusedError(
            f"was refused: its configuration names {shown(config['_target_'])} as {where}, which is no {place.words} "
            "of this package"
        )
    if config.get("_partial_", False) is not place.is_factory:
        raise RefusedError(f"was refused: its configuration sets {where}._partial_={shown(config.get('_partial_'))}")
    function = getattr(part, "__init__") if isinstance(part, type) else part  # noqa: B009 (mypy)
    signature, annotations = inspect.signature(function), get_type_hints(function, include_extras=True)
    settings = {}
    for name, value in config.items():
        if name in ("_target_", "_partial_"):
            continue
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
        if type(name) is not str or name.startswith("_") or not (takes_any or name in signature.parameters):
            raise RefusedError(f"was refused: its configuration sets {where}.{shown(name)}, which is no setting")
        settings[name] = _setting(value, annotations.get(name), f"{where}.{name}")
    try:
        return partial(part, **settings) if place.is_factory else part(**settings)
    except (RefusedError, TooLargeError):
        raise
    except Exception as error:  # settings that do not fit together can raise any error
        raise RefusedError(f"was refused: {where} of its configuration cannot be built ({reason(error)})") from error


def _setting(value: Any, annotation: Any, where: str) -> Any:
    """The value of a setting: a part, or a copy of plain values of the annotated type."""
    place = _place_of(annotation)
    if place is not None and not (value is None and NoneType in _alternatives(annotation)):
        return _built(value, place, where)
    kind = kind_of(annotation)
    plain = _plain(value, where)
    if kind is not None and not kind.accepts(plain):
        raise RefusedError(f"was refused: its configuration sets {where}={shown(value)}, which must be {kind.words}")
    return plain


def _plain(node: Any, where: str) -> Any:
    if type(node) is list:
        return [_plain(child, where) for child in node]
    if type(node) is dict and all(type(key) is str for key in node):
        if "_target_" in node:
            raise RefusedError(
                f"was refused: its configuration names {shown(node['_target_'])} as {where}, where no part belongs"
            )
        return {key: _plain(child, where) for key, child in node.items()}
    if type(node) is str and "${" in node:
        raise RefusedError(f"was refused: its configuration contains an interpolation, {shown(node)}")
    if node is None or type(node) in (str, int, float, bool):
        return node
    raise RefusedError(f"was refused: its configuration contains a {type(node).__name__}, no plain value")


@contextmanager
def at_most(numbers: int, tensors: int) -> Iterator[None]:
    """Stops the construction of modules in this context when they have become too large.

    Args:
        numbers: in all parameters and buffers together.
        tensors: parameters, buffers and modules together.

    Raises:
        TooLargeError: at the first one that is too much.
    """
    thread = threading.get_ident()  # torch calls the hooks in all threads
    left = [numbers, tensors]

    def count(_module: nn.Module, _name: str, added: Any) -> None:
        if threading.get_ident() != thread:
            return
        left[0] -= added.numel() if isinstance(added, Tensor) else 0
        left[1] -= 1
        if min(left) < 0:
            raise TooLargeError

    hooks = [
        register(count)
        for register in (
            register_module_parameter_registration_hook,
            register_module_buffer_registration_hook,
            register_module_module_registration_hook,
        )
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _NoLargerThan(TorchFunctionMode):
    """Stops a computation in this context at the first result with more than so many bytes."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self.most_bytes = most_bytes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.numel() * result.element_size() > self.most_bytes:
            raise TooLargeError
        return result


def fits(
    make: Callable[[], nn.Module],
    weights: Mapping[str, Tensor],
    computations: Callable[[Any], Sequence[Callable[[], Any]]],
) -> bool:
    """Whether a module has exactly these weights, by name, shape and kind of numbers; no memory is allocated for it.

    Args:
        make: makes the module.
        weights: by name.
        computations: with the module, for a single image.

    Raises:
        RefusedError: one of the computations needs much more memory than any image does, e.g. for a billion samples.
    """
    numbers = sum(value.numel() for value in weights.values())
    with torch.device("meta"), torch.no_grad():
        try:
            # Masks and other tensors that are not stored may be larger than the weights, but not without limit.
            with at_most(4 * numbers + 10**6, 10 * len(weights) + 1000):
                module = make().eval()
        except TooLargeError:
            return False
        wanted = module.state_dict()
        if {name: (value.shape, value.is_floating_point()) for name, value in wanted.items()} != {
            name: (value.shape, value.is_floating_point()) for name, value in weights.items()
        }:
            return False
        for compute in computations(module):
            try:
                with _NoLargerThan(LARGEST_RESULT):
                    compute()
            except TooLargeError as error:
                raise RefusedError(
                    f"was refused: its configuration needs more than {LARGEST_RESULT / 1e9:.0f} GB for a single image"
                ) from error
            except Exception:  # not every computation is possible without numbers, or at all
                continue
    return True
