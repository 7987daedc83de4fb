"""Files that are written completely or not at all."""

import csv
import io
import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


class _File(io.FileIO):
    """A new file that keeps the error of a failed write.

    A library that writes into it may raise an error of its own instead: torch turns a full disk into a RuntimeError.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def atomic_write(path: Path, is_durable: bool = False) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces ``path`` when the context ends, or is deleted after an error.

    Until then the old file stays complete. Missing folders are made. If several processes write at the same time, the
    last one wins.

    Args:
        path: of the file.
        is_durable: flush the file to the disk before it replaces the old one, so that it survives a power cut.

    Raises:
        OSError: the file cannot be written, with its name. It replaces any error to which it has led.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    raw: _File | None = None
    try:
        raw = _File(partial, "x")
        with io.BufferedWriter(raw) as file:
            yield file
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except Exception as error:
        if raw is not None and (failure := raw.failure) is not None:
            raise OSError(failure.errno, failure.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(text: str, path: Path, is_durable: bool = False) -> None:
    """Writes a text file in UTF-8.

    What UTF-8 lacks becomes an escape sequence: Python has such characters in file names whose bytes are no UTF-8.
    """
    with atomic_write(path, is_durable) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], path: Path, is_durable: bool = False) -> None:
    """Writes a table as CSV; a missing value becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), path, is_durable)


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Writes values as JSON; infinite numbers and NaN become null."""
    write_text(json.dumps(json_values(values), indent=2, allow_nan=False) + "\n", path)


def json_values(value: Any) -> Any:
    """A copy with null in place of infinite numbers and NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: json_values(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_npz(arrays: Mapping[str, Any], path: Path, compressed: bool = True) -> None:
    """Writes arrays (of NumPy, or tensors on the CPU) as one NPZ file."""
    import numpy as np  # only here, because this module is imported at every start

    with atomic_write(path) as file:
        # numpy's stub takes the arrays for allow_pickle
        (np.savez_compressed if compressed else np.savez)(file, **{name: np.asarray(a) for name, a in arrays.items()})  # type: ignore[arg-type]
