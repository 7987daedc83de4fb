"""Reads files that somebody else may have written, such as those of a downloaded run folder.

A file is read only as far as its folder may ask for it: it is not a link to a file elsewhere, it has no more than so
many bytes, and its values are a tree with no more nodes than bytes.

This module does not import torch, because every command reads run folders.
"""

import io
import json
import reprlib
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from vaelab.runtime.errors import first_line

LARGEST_YAML = 2**16  # bytes; a configuration has about five thousand, and more take seconds
LARGEST_JSON = 2**25  # bytes; an evaluation of 10,000 images has about a million
LARGEST_CSV = 2**26  # bytes; a row of metrics has about a hundred, so these are 600,000 rows
_INTEGERS = range(-(2**63), 2**64)  # Python cannot print the largest ones
_DEEPEST = 50  # levels of containers; a training writes about ten


class RefusedError(ValueError):
    """A file holds something that it may not hold."""


_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 80
_shortened.maxlevel = 2


def shown(value: Any) -> str:
    """A value of a foreign file in one short line."""
    return _shortened.repr(value)


def reason(error: Exception) -> str:
    """The message of an error about a foreign file, in one short line of visible characters."""
    line = "".join(character if character.isprintable() else "?" for character in first_line(error))
    return line if len(line) <= 200 else f"{line[:200]}..."


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a file in a folder or its subfolders, and no link to a file elsewhere.

    A link in somebody else's folder could lead to a private file, which a report or an export would then publish.
    """
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def read_bytes(path: Path, most: int) -> bytes:
    """The contents of a file.

    Raises:
        OSError: it cannot be read.
        RefusedError: it has more than ``most`` bytes, or is a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise RefusedError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise RefusedError(f"it has more than {most:,} bytes")
    return content


def read_json(path: Path, most: int = LARGEST_JSON) -> Any:
    """The values of a JSON file.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read, or has more than ``most`` bytes.
    """
    content = read_bytes(path, most)
    values = json.loads(content)
    check_tree(values, len(content))
    return values


def read_yaml(path: Path) -> Any:
    """The values of a YAML file, without resolving interpolations.

    Raises:
        Exception: of many types; it cannot be read, is too large, or repeats parts by aliases, which this project does
            not write. A few lines of aliases can stand for more values than the machine has memory.
    """
    text = read_bytes(path, LARGEST_YAML).decode()
    if "*" in text:
        _refuse_aliases(text)
    values = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    check_tree(values, len(text))
    return values


def _refuse_aliases(text: str) -> None:
    levels = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise RefusedError("it has aliases")
        levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if levels > _DEEPEST:  # the parser takes ever longer
            raise RefusedError(f"it holds more than {_DEEPEST} containers in each other")


def check_tree(root: Any, most_nodes: int) -> None:
    """Refuses values that no loop over them gets through.

    These are containers that hold themselves, are too deep, or are shared too often, and huge integers.

    Args:
        root: of dictionaries, lists, tuples and values.
        most_nodes: a container that two others share counts twice.

    Raises:
        RefusedError: with the reason.
    """
    known: dict[int, tuple[int, int]] = {}  # nodes and levels of a container by its identity
    open_containers: set[int] = set()

    def measured(node: Any) -> tuple[int, int]:
        if not isinstance(node, dict | list | tuple):
            if isinstance(node, int) and node not in _INTEGERS:
                raise RefusedError("it holds an integer of more than 64 bits")
            return 1, 0
        if id(node) in known:
            return known[id(node)]
        if id(node) in open_containers:
            raise RefusedError("it holds a container that contains itself")
        if len(open_containers) >= _DEEPEST:
            raise RefusedError(f"it holds more than {_DEEPEST} containers in each other")
        open_containers.add(id(node))
        nodes, levels = 1, 1
        for child in node.values() if isinstance(node, dict) else node:
            more, deeper = measured(child)
            nodes, levels = nodes + more, max(levels, deeper + 1)
        open_containers.remove(id(node))
        known[id(node)] = nodes, levels
        return nodes, levels

    nodes, levels = measured(root)
    if levels > _DEEPEST:
        raise RefusedError(f"it holds more than {_DEEPEST} containers in each other")
    if nodes > most_nodes:
        raise RefusedError("it repeats its parts more often than its size allows")
