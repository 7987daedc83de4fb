"""Checks every setting of a configuration against the type that its reader declares.

A part is a group of settings with ``_target_``: a class or a function of this project or of a library. Its settings are
the parameters of this class or function, and their annotations are the types. The other settings are read by a command,
which has a table of their types. So there is no setting without a type, and each type stands where the setting is read.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from vaelab.commands.error_messages import nearest
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.overrides import literal, typed
from vaelab.runtime.validation import SettingError, check, kind_of_setting

_COPY = re.compile(r"\$\{([\w.]+)\}")  # the value of another setting
# What Hydra reads in a part.
_HYDRA = {"_target_": str, "_partial_": bool, "_recursive_": bool, "_convert_": str}
_ANY = inspect.Parameter.empty


def check_types(cfg: DictConfig, types: Mapping[str, Any]) -> None:
    """Checks the settings that a command itself reads.

    Text that states a value of the right type, such as that of an environment variable, is replaced by this value.

    Args:
        cfg: the configuration of the command.
        types: from each setting to its type.

    Raises:
        SettingError: a value is not of its type; the line says what to type instead.
    """
    settings = _Settings(cfg, into_parts=False)
    for key, annotation in types.items():
        settings.check_value(key, settings.raw(key), annotation)


def check_parts(cfg: DictConfig) -> None:
    """Checks the settings of all parts of a configuration, and imports the classes and functions of the parts.

    Raises:
        SettingError: see :func:`check_types`.
        UserError: a part has no such setting, lacks one, or does not fit its place.
    """
    settings = _Settings(cfg)
    for key in cfg:
        if key != "hydra":
            settings.check_parts_in(str(key), settings.raw(str(key)))
    settings.check_copies()


def check_settings_of(cfg: DictConfig, key: str, target: str) -> None:
    """Checks a group of settings that a command gives to a class itself: the group has no ``_target_``.

    Raises:
        SettingError, UserError: see :func:`check_parts`.
    """
    settings = _Settings(cfg)
    settings.check_part(key, {**settings.raw(key), "_target_": target}, _ANY)


class _Settings:
    """The settings of one configuration, in which text may be replaced.

    Args:
        cfg: the configuration.
        into_parts: whether to check the settings of a part where a setting is a part.
    """

    def __init__(self, cfg: DictConfig, into_parts: bool = True) -> None:
        self.cfg = cfg
        self.into_parts = into_parts
        self._copies: list[tuple[str, Any, Any]] = []
        self._raw: Any = OmegaConf.to_container(cfg)

    def raw(self, key: str) -> Any:
        """The value of a setting, without its interpolations; ``None`` if there is no such setting."""
        node = self._raw
        for name in key.split("."):
            node = node.get(name) if isinstance(node, dict) else None
        return node

    def check_parts_in(self, key: str, node: Any) -> None:
        """Checks the parts in a group of settings."""
        if isinstance(node, dict) and "_target_" in node:
            self.check_part(key, node, _ANY)
        elif isinstance(node, dict):
            for name, child in node.items():
                self.check_parts_in(f"{key}.{name}", child)

    def check_value(self, key: str, value: Any, annotation: Any, default: Any = None) -> None:
        """Checks the value of one setting, without its interpolations.

        Args:
            key: the full name of the setting.
            value: its value.
            annotation: its type.
            default: an example for the error message, if it is of this type.
        """
        if isinstance(value, str | list) and "${" in str(value):
            if self.into_parts and _COPY.fullmatch(str(value)):
                self._copies.append((key, annotation, default))
                return None
            value = self._resolved(key)
        if self.into_parts and isinstance(value, dict) and "_target_" in value:
            return self.check_part(key, value, annotation)
        children = _child_annotation(annotation)
        if isinstance(value, dict) and children is not None:
            for name, child in value.items():
                self.check_value(f"{key}.{name}", child, children)
            return None
        return self._check_plain(key, value, annotation, default)

    def check_copies(self) -> None:
        """Checks the settings that have the values of others. They come last: an error names the others first."""
        while self._copies:
            key, annotation, default = self._copies.pop(0)
            self.check_value(key, self._resolved(key), annotation, default)

    def _resolved(self, key: str) -> Any:
        value = OmegaConf.select(self.cfg, key)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value

    def _check_plain(self, key: str, value: Any, annotation: Any, default: Any) -> None:
        kind = kind_of_setting(annotation)
        if kind is None:  # it has to be built
            raise UserError(f"{key}={literal(value)}: it must be a group of settings with _target_")
        if kind.accepts(value):
            return
        stated = _stated(value)
        if stated is not None and kind.accepts(stated):
            OmegaConf.update(self.cfg, key, stated)
            return
        fits = default is not None and kind.accepts(default)
        raise SettingError(key, value, kind.words, default if fits else kind.example)

    def check_part(self, key: str, node: dict[str, Any], annotation: Any) -> None:
        """Checks the settings of a part.

        Args:
            key: its full name.
            node: its settings.
            annotation: the type of its place.
        """
        for name, type_ in _HYDRA.items():
            if name in node:
                check(f"{key}.{name}", node[name], type_)
        part = _imported(key, node["_target_"])
        _check_place(key, node, part, annotation)
        parameters = _parameters(part)
        for name, value in node.items():
            if name in parameters.types:
                self.check_value(f"{key}.{name}", value, *parameters.types[name])
            elif name not in (*_HYDRA, "_args_") and not parameters.takes_others:
                near = nearest(name, list(parameters.types))
                hint = f"did you mean {' or '.join(typed(f'{key}.{other}', value) for other in near)}?" if near else ""
                raise UserError(f"nothing reads {key}.{name}; {hint or f'{key} has {_listed(parameters.types)}'}")
        if not node.get("_partial_") and "_args_" not in node:
            for name in parameters.required:
                if name not in node:
                    raise UserError(f"{key}.{name} is missing: {node['_target_']} needs it")


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "no settings"


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _child_annotation(annotation: Any) -> Any:
    """The type of the values of a mapping; ``None`` if the annotation is no mapping."""
    found = [get_args(member)[1] for member in _members(annotation) if get_origin(member) in (Mapping, dict)]
    return found[0] if found and found[0] is not Any else None


def _stated(value: Any) -> Any:
    """The value that text states in the syntax of the command line; ``None`` if it states none."""
    if isinstance(value, list):
        stated = [element if _stated(element) is None else _stated(element) for element in value]
        return stated if stated != value else None
    if not isinstance(value, str):
        return None
    try:
        return OverridesParser.create().parse_override(f"value={value.strip()}").value()
    except HydraException:
        return None


def _imported(key: str, target: str) -> Callable[..., Any]:
    """The class or the function of a part."""
    try:
        part = get_object(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}._target_={literal(target)}: {first_line(error)}") from error
    if not callable(part):
        raise UserError(f"{key}._target_={literal(target)}: it is neither a class nor a function")
    return part


def _check_place(key: str, node: dict[str, Any], part: Callable[..., Any], annotation: Any) -> None:
    """Refuses a part that builds something else than its place needs."""
    members = _members(annotation)
    callables = [member for member in members if get_origin(member) is Callable or member is Callable]
    classes = [member for member in members if _is_class(member)]
    if not callables and not classes:
        return
    is_called = bool(callables)  # by the place, with the remaining arguments
    if bool(node.get("_partial_")) != is_called and isinstance(part, type):
        raise SettingError(f"{key}._partial_", node.get("_partial_", False), literal(is_called), is_called)
    built: Any = part if isinstance(part, type) else _hints(part).get("return")
    wanted = classes or [found for member in callables if _is_class(found := (get_args(member) or (_ANY, _ANY))[1])]
    if wanted and _is_class(built) and not any(_is_kind_of(built, cls) for cls in wanted):
        names = " or ".join(cls.__name__ for cls in wanted)
        raise UserError(f"{key}._target_={node['_target_']}: it must build a {names}, and it builds a {built.__name__}")


def _is_kind_of(built: type, wanted: type) -> bool:
    try:
        return issubclass(built, wanted)
    except TypeError:  # a protocol, which only says what such an object can do
        return True


def _is_class(annotation: Any) -> bool:
    """Whether objects of this type have to be built, and can be recognised by their class."""
    plain = (bool, int, float, str, list, tuple, dict, object, type(None))
    return isinstance(annotation, type) and get_origin(annotation) is None and annotation not in (*plain, _ANY)


class _Parameters(NamedTuple):
    """The parameters of a part.

    Attributes:
        types: from each name to its type and its default.
        required: the names without a default.
        takes_others: whether it takes other names, too.
    """

    types: dict[str, tuple[Any, Any]]
    required: list[str]
    takes_others: bool


@functools.cache
def _parameters(part: Any) -> _Parameters:
    """The parameters of a class or a function; a class with ``**options`` has those of its base classes, too."""
    is_class = isinstance(part, type)
    owners = [cls.__dict__["__init__"] for cls in part.__mro__ if "__init__" in cls.__dict__] if is_class else [part]
    types: dict[str, tuple[Any, Any]] = {}
    required: list[str] = []
    for number, owner in enumerate(owners):
        try:
            parameters = list(inspect.signature(owner).parameters.values())[int(is_class) :]
        except (ValueError, TypeError):  # it is not written in Python
            break
        hints = _hints(owner)
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                if parameter.default is _ANY and number == 0:
                    required.append(parameter.name)
                default = None if parameter.default is _ANY else parameter.default
                types.setdefault(parameter.name, (hints.get(parameter.name, _ANY), default))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return _Parameters(types, required, takes_others=False)
    # A library may give its options to anything. A class of this project gives them to its base classes.
    return _Parameters(types, required, takes_others=not str(part.__module__).startswith("vaelab."))


def _hints(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):  # of a library that imports its types for checkers only
        return {}
