"""When the images of a folder are decoded, and what becomes of a cache that is not complete."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.data.folders import fill, folder_of, spoil
from vaelab.data import image_cache, image_files
from vaelab.runtime.errors import UserError


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that have been decoded."""
    names: list[str] = []
    decode = image_files._image

    def note(path: Path, *options: Any) -> Any:
        names.append(path.name)
        return decode(path, *options)

    monkeypatch.setattr(image_files, "_image", note)
    return names


def test_images_are_decoded_once_and_again_when_something_changes(tmp_path: Path, decoded: list[str]) -> None:
    def changed(**options: Any) -> bool:
        decoded.clear()
        source = folder_of(tmp_path, **options)
        source.prepare()
        source.load(train=True)
        return bool(decoded)

    folder, cache = tmp_path / "in", tmp_path / "out"
    fill(folder, 6)
    assert changed()
    assert not changed()
    assert not changed(test_fraction=0.5, on_error="skip")
    assert changed(image_shape=[1, 4, 4])
    assert not changed()
    fill(folder, 1, start=6)
    assert changed()
    os.utime(folder / "000.png", ns=(0, 0))
    assert changed()
    (folder / "000.png").unlink()
    assert changed()
    assert not changed()
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".json", ".npy", ".npy"]
    for suffix in (".json", ".npy"):
        for path in cache.glob(f"*{suffix}"):
            path.write_bytes(path.read_bytes()[:-20])
        assert changed()
        assert not changed()
    for path in cache.glob("*.npy"):
        path.unlink()
    assert changed()


def test_images_stay_on_disk(tmp_path: Path) -> None:
    fill(tmp_path / "in", 6)
    source = folder_of(tmp_path)
    source.prepare()
    (array,) = (tmp_path / "out").glob("*.npy")
    images = source.load(train=True).images
    assert not images.numpy().flags.owndata
    content = bytearray(array.read_bytes())
    content[-images.numel() :] = bytes([200]) * images.numel()
    with array.open("r+b") as file:
        file.write(content)
    assert images.unique().tolist() == [200]


@pytest.mark.parametrize("moment", [1, 2])
def test_processes_that_start_at_once_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Another one does everything while the first is about to put the array, or the manifest, into place."""
    fill(tmp_path / "in", 20)
    first, second = folder_of(tmp_path), folder_of(tmp_path)
    replace, calls = os.replace, list[Path]()

    def interrupted(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == moment:
            second.prepare()
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    first.prepare()
    assert len(calls) == 4
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".npy"]
    for train in (True, False):
        assert torch.equal(first.load(train).images, second.load(train).images)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fill(tmp_path / "in", 3)
    monkeypatch.setattr(image_cache, "_write_header", fail)
    with pytest.raises(UserError, match=r"takes 0 MB \(No space left on device\): make room, or train with"):
        folder_of(tmp_path).prepare()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("how", ["killed", "an image that cannot be read", "a journal of other files"])
def test_what_is_interrupted_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str], how: str
) -> None:
    fill(tmp_path / "in", 12)
    expected = [folder_of(tmp_path).load(train).images.clone() for train in (True, False)]
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    decoded.clear()
    monkeypatch.setattr(image_cache, "_NOTE_SECONDS", -1)
    read_all = image_files.read_all

    def interrupted(paths: Any, *options: Any) -> Any:
        for number, result in enumerate(read_all(paths, *options)):
            if number == 7:
                if how != "an image that cannot be read":
                    raise KeyboardInterrupt
                result = "it is gone"
            yield result

    monkeypatch.setattr(image_cache, "read_all", interrupted)
    with pytest.raises((KeyboardInterrupt, UserError)):
        folder_of(tmp_path).prepare()
    (journal,) = (tmp_path / "out").glob(".*.partial.json")
    assert json.loads(journal.read_text())["done"] == 7
    if how == "a journal of other files":
        journal.write_text('{"done": 700, "unreadable": {}}')
    monkeypatch.setattr(image_cache, "read_all", read_all)
    decoded.clear()
    source = folder_of(tmp_path)
    source.prepare()
    assert len(decoded) == (12 if how == "a journal of other files" else 5)
    for images, train in zip(expected, (True, False), strict=True):
        assert torch.equal(source.load(train).images, images)
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".npy"]


def test_what_was_begun_of_files_that_have_changed_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", 6)
    monkeypatch.setattr(image_cache, "_NOTE_SECONDS", -1)
    spoil(tmp_path / "in" / "bad.png", "empty")
    with pytest.raises(UserError, match="bad.png"):
        folder_of(tmp_path).prepare()
    assert len(list((tmp_path / "out").glob(".*.partial*"))) == 2
    (tmp_path / "in" / "bad.png").unlink()
    folder_of(tmp_path).prepare()
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".npy"]


def test_progress_is_shown_when_it_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(image_cache, "get_console", lambda: console)
    fill(tmp_path / "in", 5)
    folder_of(tmp_path).prepare()
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    monkeypatch.setattr(image_cache, "_PATIENCE_SECONDS", -1)
    fill(tmp_path / "in", 5)
    folder_of(tmp_path).prepare()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "decoding images" in shown
    assert "left" in shown
