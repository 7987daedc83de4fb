"""Files that are written whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


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
