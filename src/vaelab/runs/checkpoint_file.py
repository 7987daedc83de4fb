"""Reads the file of a checkpoint: dictionaries, lists, plain values and tensors of real numbers, and nothing else.

``torch.save`` writes an uncompressed ZIP archive: a pickle, and the bytes of each tensor in an entry of their own. A
pickle is a program, and ``torch.load(weights_only=True)`` limits the functions that it calls. Some of these still turn
a few bytes into gigabytes. This reader calls no function that a file names. It reads the few instructions that describe
the values above, so a file gets no more memory than it has bytes.

Every entry of the archive has a checksum (CRC-32), which torch does not verify. This reader verifies all of them.
"""

import math
import pickletools
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaelab.runtime.errors import first_line

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Callbacks and schedulers of torch and of users may store these, which no model needs.
_HARMLESS = {"torch Size", "torch device", "collections Counter", "collections defaultdict", "__builtin__ set"}
_INTEGERS = range(-(2**63), 2**64)
_MOST_DIMENSIONS = 64


class UnreadableError(Exception):
    """The file is damaged, or no archive of torch."""


class UnknownContentsError(Exception):
    """The file holds something else than plain values and tensors of real numbers."""


class Unread:
    """The place of a value that this reader does not know and that no model needs."""


class _Name(str):
    """The name of a class or a function in a pickle; it is never looked up."""

    __slots__ = ()


def read(path: Path) -> tuple[Any, int]:
    """The contents of a file of ``torch.save``, on the CPU, and the number of bytes that describe them without tensors.

    Raises:
        UnreadableError: the file cannot be read, a checksum is wrong, or it is no archive of torch.
        UnknownContentsError: see there.
    """
    try:
        entries = _entries(path)
        [prefix] = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
        order = bytes(entries.get(f"{prefix}byteorder", sys.byteorder.encode())).decode()
        if order != sys.byteorder:
            raise UnreadableError("it was written on a machine with another order of bytes")
        pickled = bytes(entries[f"{prefix}data.pkl"])
        storages = _storages({name.removeprefix(f"{prefix}data/"): entry for name, entry in entries.items()})
        return _value(pickled, storages), len(pickled)
    except (UnreadableError, UnknownContentsError):
        raise
    except (OSError, zipfile.BadZipFile) as error:
        raise UnreadableError(first_line(error)) from error
    except Exception as error:  # a file that another program wrote can raise any error
        raise UnreadableError("its parts do not fit together") from error


def _entries(path: Path) -> dict[str, bytearray]:
    """The entries of an archive, whose checksums are right.

    torch writes uncompressed archives. A small compressed file could unpack to more zeros than the machine has memory.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        claimed = sum(entry.file_size for entry in entries)
        if claimed > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UnreadableError(f"its {size:,} bytes claim to hold {claimed:,}")
        return {entry.filename: bytearray(archive.read(entry)) for entry in entries}


def _storages(entries: dict[str, bytearray]) -> Callable[[Any], Tensor]:
    """A function from the description of a storage in a pickle to its numbers, (N,)."""
    known: dict[str, Tensor] = {}

    def storage(description: Any) -> Tensor:
        kind, name, key, _, count = description
        dtype = _DTYPES.get(name.removeprefix("torch "))
        if kind != "storage" or dtype is None:
            raise UnknownContentsError(f"numbers of the kind {name}")
        if key not in known:
            data = entries[key]
            known[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        if known[key].dtype != dtype or len(known[key]) != count:
            raise UnreadableError(f"entry {key} has another size than it claims")
        return known[key]

    return storage


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A view of a storage in which no number occurs twice, as far as its size tells."""
    if len(size) > _MOST_DIMENSIONS or math.prod(size) > len(storage):
        raise UnreadableError("a tensor has more numbers than the file")
    return storage.as_strided(size, stride, offset)  # raises an error if it is not within the storage


def _result(name: Any, arguments: Any) -> Any:
    """The value that a function with this name would return; the function is not called."""
    if not isinstance(name, _Name):
        raise UnreadableError("its parts do not fit together")
    if name == "torch._utils _rebuild_tensor_v2":
        return _tensor(*arguments)
    if name == "torch._utils _rebuild_parameter":
        return arguments[0]
    if name == "collections OrderedDict" and not arguments:
        return {}
    if name in _HARMLESS:
        return Unread()
    raise UnknownContentsError(name)


def _key(key: Any) -> Any:
    # Other keys, such as tuples, can be chosen so that a dictionary of them takes forever to fill.
    return key if type(key) in (str, int, bool, type(None)) else Unread()


def _value(pickled: bytes, storage: Callable[[Any], Tensor]) -> Any:
    """The value that a pickle describes."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks below each mark
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(pickled):
        match opcode.name:
            case "PROTO":
                pass
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINUNICODE" | "BINFLOAT":
                stack.append(argument)
            case "BININT" | "BININT1" | "BININT2" | "LONG1":
                if argument not in _INTEGERS:  # larger ones can be chosen so that they are slow keys
                    raise UnreadableError("an integer has more than 64 bits")
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "MARK":
                below.append(stack)
                stack = []
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_SET":
                stack.append(Unread())
            case "TUPLE":
                items = since_mark()
                stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                _of(list, stack[-1]).append(item)
            case "APPENDS":
                items = since_mark()
                _of(list, stack[-1]).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _of(dict, stack[-1])[_key(key)] = value
            case "SETITEMS":
                items = since_mark()
                _of(dict, stack[-1]).update(zip(map(_key, items[::2]), items[1::2], strict=True))
            case "GLOBAL":
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(storage(stack.pop()))
            case "REDUCE":
                arguments, name = stack.pop(), stack.pop()
                stack.append(_result(name, arguments))
            case "BUILD":  # attributes, which no model needs
                stack.pop()
            case "STOP":
                return stack.pop()
            case _:
                raise UnknownContentsError(f"instruction {opcode.name}")
    raise UnreadableError("its description ends too early")


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise UnreadableError("its parts do not fit together")
    return value
