"""Files that are written whole or not at all."""

import csv
import io
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def whole(path: Path, is_durable: bool = False) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the context ends well, and is gone when it does not.

    What was there before is whole until then. Its folder is made. Of several that write at once, the last one stays.

    Args:
        path: of the file.
        is_durable: it is on the disk before it takes its place, for what must outlive a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Writes a text."""
    with whole(path) as file:
        file.write(text.encode())


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], path: Path, is_durable: bool = False) -> None:
    """Writes a table; what a row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    with whole(path, is_durable) as file:
        file.write(text.getvalue().encode())
