"""Files that are written whole or not at all."""

from pathlib import Path

import pytest

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
