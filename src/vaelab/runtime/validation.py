"""Types of settings, and the error line about a value of another type.

The parts of a model annotate their arguments with types, and :func:`checked` checks the arguments::

    class Warmup:
        @checked
        def __init__(self, steps: NonNegativeInt = 0, kernel: Literal["gaussian", "cosine"] = "gaussian") -> None: ...

The commands check their settings with :func:`check`, by tables from setting to type. An annotation is checked if it is
built from ``bool``, ``int``, ``float``, ``str``, ``Path``, ``None``, ``Literal``, the types of this file, and unions,
sequences and mappings of them. Others, such as tensors, are not checked.
"""

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from vaelab.runtime.errors import UserError
from vaelab.runtime.overrides import literal, typed

P = ParamSpec("P")
R = TypeVar("R")


class SettingError(UserError, ValueError):
    """A setting has an impossible value.

    Args:
        setting: its name, as far as it is known here.
        value: the impossible value.
        must_be: a description of the possible values, which follows "it must be".
        example: a possible value.
    """

    def __init__(self, setting: str, value: Any, must_be: str, example: Any) -> None:
        super().__init__(setting, value, must_be, example)  # pickle needs them
        self.setting, self.value, self.must_be, self.example = setting, value, must_be, example

    def __str__(self) -> str:
        suggestion = typed(self.setting, _plain(self.example))
        return f"{self.setting}={literal(_plain(self.value))}: it must be {self.must_be}; type e.g. {suggestion}"

    def __repr__(self) -> str:  # Hydra prints it
        return f"SettingError({str(self)!r})"

    def within(self, part: str) -> "SettingError":
        """The same error with the full name of the setting: ``components`` within ``prior`` is ``prior.components``."""
        return SettingError(f"{part}.{self.setting}", self.value, self.must_be, self.example)


def _plain(value: Any) -> Any:
    """The value with lists in place of all sequences."""
    return [_plain(element) for element in value] if _is_sequence(value) else value


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


@contextmanager
def within(part: str) -> Iterator[None]:
    """Adds the name of a part to errors about its settings.

    Raises:
        SettingError: with the name of the part before that of the setting.
    """
    try:
        yield
    except SettingError as error:
        raise error.within(part) from error


@dataclass(frozen=True, eq=False)  # hashed by identity: each kind is made once
class Kind:
    """A type of values.

    Attributes:
        alternatives: descriptions of the values, which follow "it must be"; several are joined by "or".
        accepts: whether a value is of this type.
        example: a value of this type.
    """

    alternatives: tuple[str, ...]
    accepts: Callable[[Any], bool]
    example: Any

    @property
    def words(self) -> str:
        """The alternatives in one phrase."""
        return " or ".join(filter(None, (", ".join(self.alternatives[:-1]), self.alternatives[-1])))


def integer(least: int | None = None, most: int | None = None, example: int = 20) -> Kind:
    """Integers from ``least`` to ``most``, both included; no booleans, and no floats such as 1.0."""

    def accepts(value: Any) -> bool:
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        return is_integer and (least is None or value >= least) and (most is None or value <= most)

    if least is None:
        words = "an integer"
    elif most is not None:
        words = f"an integer from {least} to {most}"
    else:
        words = "a positive integer" if least == 1 else f"an integer of at least {least}"
    return Kind((words,), accepts, example if accepts(example) else least)


def number(
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    example: float = 0.5,
) -> Kind:
    """Finite numbers from ``least`` to ``most``, both included, and between ``above`` and ``below``, both excluded."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, Real) or isinstance(value, bool):
            return False
        number: Any = value  # of Python or NumPy
        return bool(-math.inf < number < math.inf and least <= number <= most and above < number < below)

    limits = [
        f"{words} {bound}"
        for words, bound in (("of at least", least), ("above", above), ("at most", most), ("below", below))
        if math.isfinite(bound)
    ]
    finite = "" if math.isfinite(min(most, below)) else "finite "
    return Kind((f"a {finite}number {' and '.join(limits)}".strip(),), accepts, example)


def choice(options: Sequence[Any]) -> Kind:
    """One of some values."""

    def accepts(value: Any) -> bool:
        return any(type(value) is type(option) and value == option for option in options)

    return Kind(tuple(map(literal, options)), accepts, options[0])


def sequence(element: Kind, length: int | None = None, least: int = 0, example: list[Any] | None = None) -> Kind:
    """Lists, tuples and other sequences of values of one kind, with this length or at least this many values."""

    def accepts(value: Any) -> bool:
        fits = _is_sequence(value) and length in (None, len(value)) and len(value) >= least
        return fits and all(map(element.accepts, value))

    several, is_noun = re.subn(r"^an? (.*?)(integer|number)", r"\1\2s", element.words)
    count = f"{length} " if length else f"at least {least} " if least else ""
    words = f"a list of {count}{several if is_noun else f'values, each {element.words}'}"
    return Kind((words,), accepts, example or [element.example] * (length or 2))


def pair(elements: Sequence[Kind]) -> Kind:
    """Lists with one value of each kind, in this order."""
    alike = sequence(elements[0], len(elements))
    words = f"a list of {', '.join(element.words for element in elements)}"

    def accepts(value: Any) -> bool:
        fits = _is_sequence(value) and len(value) == len(elements)
        return fits and all(element.accepts(part) for element, part in zip(elements, value, strict=True))

    same = len({element.words for element in elements}) == 1
    return Kind(alike.alternatives if same else (words,), accepts, [element.example for element in elements])


def mapping(element: Kind) -> Kind:
    """Groups of settings, each of one kind."""

    def accepts(value: Any) -> bool:
        return isinstance(value, Mapping) and all(map(element.accepts, value.values()))

    return Kind(("a group of settings",), accepts, {})


def union(kinds: Sequence[Kind]) -> Kind:
    """Values of any of several kinds."""
    alternatives = tuple(dict.fromkeys(words for kind in kinds for words in kind.alternatives))
    return Kind(alternatives, lambda value: any(kind.accepts(value) for kind in kinds), kinds[0].example)


FLAG = choice((True, False))
TEXT = Kind(("text",), lambda value: isinstance(value, str), "text")
PATH = Kind(("text",), lambda value: isinstance(value, str | Path), "folder")
NULL = choice((None,))
ANYTHING = Kind(("anything",), lambda value: True, None)
GROUP = Kind(("a group of settings",), lambda value: isinstance(value, Mapping), {})

PositiveInt = Annotated[int, integer(1)]
NonNegativeInt = Annotated[int, integer(0)]
AtLeastTwo = Annotated[int, integer(2)]
Seed = Annotated[int, integer(0, 2**32 - 1, example=0)]
Milliseconds = Annotated[int, integer(10, example=200)]  # a frame of a GIF is shown at least so long
PositiveNumber = Annotated[float, number(above=0)]
NonNegativeNumber = Annotated[float, number(0)]
Fraction = Annotated[float, number(above=0, below=1)]  # both excluded
FractionOrZero = Annotated[float, number(0, below=1)]
FractionOrOne = Annotated[float, number(most=1, above=0)]
ImageShape = Annotated[Sequence[int], sequence(integer(1), 3, example=[1, 28, 28])]  # (C, H, W)
MatrixProducts = Literal["highest", "high", "medium"]  # names of torch
Name = Annotated[str, union([TEXT, integer(), number()])]  # of a file or a run: Hydra reads 2024 as a number
Group = Annotated[Mapping[str, Any], GROUP]

_PLAIN_KINDS: dict[Any, Kind] = {
    bool: FLAG,
    int: integer(),
    float: number(),
    str: TEXT,
    Path: PATH,
    None: NULL,
    NoneType: NULL,
}


@functools.cache
def kind_of(annotation: Any) -> Kind | None:
    """The kind of values that an annotation means; ``None`` if it is not checked."""
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return next((kind for kind in reversed(arguments) if isinstance(kind, Kind)), None) or kind_of(arguments[0])
    if origin is Literal:
        return choice(arguments)
    if origin in (Union, UnionType):
        kinds = _known_kinds(arguments)
        return union(kinds) if len(kinds) == len(arguments) else None
    if origin in (Sequence, list) or (origin is tuple and arguments[1:] == (...,)):
        element = kind_of(arguments[0])
        return None if element is None else sequence(element)
    if origin is tuple:
        kinds = _known_kinds(arguments)
        return pair(kinds) if kinds and len(kinds) == len(arguments) else None
    if origin in (Mapping, dict):
        element = kind_of(arguments[1])
        return None if element is None else mapping(element)
    return _PLAIN_KINDS.get(annotation)


def _known_kinds(annotations: Sequence[Any]) -> list[Kind]:
    return [kind for kind in map(kind_of, annotations) if kind is not None]


@functools.cache
def kind_of_setting(annotation: Any) -> Kind | None:
    """The kind of plain values that an annotation admits: those which a line or a file can state, and no objects.

    Of ``float | Tensor`` it is a number. It is ``None`` if the annotation admits no plain values at all, and
    ``ANYTHING`` if it says nothing about them.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (Any, object, inspect.Parameter.empty) or isinstance(annotation, str | TypeVar):
        return ANYTHING
    if origin in (Union, UnionType):
        kinds = [kind for kind in map(kind_of_setting, arguments) if kind is not None]
        return union(kinds) if kinds else None
    if origin is tuple and arguments[1:] != (...,):
        kinds = [kind for kind in map(kind_of_setting, arguments) if kind is not None]
        return pair(kinds) if kinds and len(kinds) == len(arguments) else None
    return kind_of(annotation)


def such_as(annotation: Any, example: Any) -> Any:
    """The same type with another example for error messages."""
    kind = kind_of(annotation)
    assert kind is not None
    return Annotated[annotation, replace(kind, example=example)]


def check(setting: str, value: Any, annotation: Any, example: Any = None) -> None:
    """Raises an error if a value is not of the annotated type.

    Args:
        setting: its name.
        value: to be checked.
        annotation: a type, see the description of this module.
        example: for the error message, in place of the example of the type.

    Raises:
        SettingError: with what to type instead.
    """
    kind = kind_of(annotation)
    if kind is not None and not kind.accepts(value):
        fits = example is not None and kind.accepts(example)
        raise SettingError(setting, value, kind.words, example if fits else kind.example)


def check_fields(instance: Any) -> None:
    """Raises an error if a field of a dataclass is not of its annotated type; call it in ``__post_init__``.

    Raises:
        SettingError: see :func:`check`.
    """
    owner: Any = type(instance)
    for name, annotation in _annotations(owner).items():
        check(name, getattr(instance, name), annotation, getattr(owner, name, None))


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator of functions and of ``__init__``: checks that arguments are of their annotated types.

    The error message proposes the default of the argument, if it has one. The signature stays as it is.

    Raises:
        SettingError: see :func:`check`.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given: Mapping[str, Any] = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # raises the error about missing or unknown arguments
        annotations = _annotations(function)
        for name, value in given.items():
            parameter = signature.parameters[name]
            if name in annotations and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                default = None if parameter.default is parameter.empty else parameter.default
                check(name, value, annotations[name], default)
        return function(*args, **kwargs)

    return call


@functools.cache
def _annotations(owner: Any) -> dict[str, Any]:
    return get_type_hints(owner, include_extras=True)
