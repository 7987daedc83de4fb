"""Files that are written whole or not at all."""

import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image

from vaelab.commands.error_messages import explain
from vaelab.runtime.files import atomic_write


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_file_takes_its_place_when_all_of_it_is_written(is_durable: bool, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    for content in (b"first", b"second"):
        with atomic_write(path, is_durable) as file:
            file.write(content)
            assert not path.exists() or path.read_bytes() == b"first"
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_is_not_written_to_its_end_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_last_of_several_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as one, atomic_write(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one"  # whose context ends last
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def full_disk(size: int = 2000) -> Iterator[None]:
    """No file of this process may be larger: for a writer, the same as a disk without room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _bytes(file: BinaryIO) -> None:
    file.write(bytes(5000))


def _few_bytes(file: BinaryIO) -> None:  # which are written when the file is closed
    file.write(bytes(2001))


def _tensor(file: BinaryIO) -> None:
    torch.save(torch.zeros(5000), file)


def _array(file: BinaryIO) -> None:
    np.savez(file, a=np.zeros(5000))


def _image(file: BinaryIO) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)).save(file, format="PNG")


@pytest.mark.parametrize("write", [_bytes, _few_bytes, _tensor, _array, _image])
def test_a_full_disk_is_an_oserror_whatever_writes(write: Callable[[BinaryIO], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with full_disk(), pytest.raises(OSError, match="File too large") as caught, atomic_write(path) as file:
        write(file)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert str(explain(caught.value)).startswith(f"File too large ({path}): make room")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), atomic_write(tmp_path / "file"):
        raise RuntimeError("mine")
    assert not list(tmp_path.iterdir())
