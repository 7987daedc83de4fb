"""Which subfolders are splits, which are classes, and what is asked."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.data.folders import fill, folder_of, numbers, save
from vaelab.data.image_folder import ImageFolder
from vaelab.runtime.errors import UserError

AUTO = {"splits": "auto", "pixel_range": "auto"}


def _layout(tmp_path: Path, *folders: str) -> None:
    """Six images in each of these folders."""
    for i, name in enumerate(folders):
        fill(tmp_path / "in" / name, 6, start=10 * i)


def _typed(error: UserError) -> list[dict[str, Any]]:
    """The settings of each suggestion of an error."""
    suggestions = str(error).rpartition(": type ")[2].split(", or ")
    suggestions = [suggestion for suggestion in suggestions if "<" not in suggestion]  # a folder for the user to make
    words = [[word for word in shlex.split(suggestion) if "=" in word] for suggestion in suggestions]
    parse = OverridesParser.create().parse_overrides
    return [{(o := parse([word])[0]).key_or_group.split(".")[-1]: o.value() for word in each} for each in words]


@pytest.mark.parametrize(
    "names", [("train", "test"), ("training", "testing"), ("Train", "Test"), ("train_set", "test")]
)
@pytest.mark.parametrize("validation", ["val", "Validation", "dev"])
def test_splits_are_recognised_by_their_usual_names(tmp_path: Path, names: tuple[str, str], validation: str) -> None:
    train, test = names
    _layout(tmp_path, f"{train}/cat", f"{train}/dog", f"{test}/cat", f"{test}/dog", f"{validation}/cat")
    source = folder_of(tmp_path, **AUTO)
    assert sorted(numbers(source.load(train=True))) == [*range(6), *range(10, 16)]
    assert sorted(numbers(source.load(train=False))) == [*range(20, 26), *range(30, 36)]
    assert source.classes == ("cat", "dog")
    assert source.found["splits"] == list(names)


@pytest.mark.parametrize(
    "folders",
    [
        ("train/cat", "train/dog", "val/cat", "val/dog"),
        ("test/cat", "valid/cat"),
        ("Train/cat", "training/cat", "test/cat"),
        ("data/train/cat", "data/train/dog", "data/test/cat"),
        ("data/train/cat", "data/val/cat"),
        ("cat/train", "cat/test", "dog/train", "dog/test"),
    ],
    ids=" ".join,
)
def test_splits_that_are_not_clear_are_asked_for_and_every_suggestion_works(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    _layout(tmp_path, *folders)
    with pytest.raises(UserError, match=r"can be (splits|classes)|can be splits or classes") as caught:
        folder_of(tmp_path, **AUTO).prepare()
    assert "\n" not in str(caught.value)
    suggestions = _typed(caught.value)
    assert {"splits": []} in suggestions
    for suggestion in suggestions:
        source = folder_of(tmp_path, **{**AUTO, **suggestion})
        train, test = numbers(source.load(train=True)), numbers(source.load(train=False))
        assert train
        assert test
        assert not set(train) & set(test)


@pytest.mark.parametrize(
    "folders",
    [("bus", "car", "train"), ("test", "other"), ("val", "eval"), ("valley", "trainer", "testament")],
    ids=" ".join,
)
def test_classes_with_such_names_are_classes(tmp_path: Path, folders: tuple[str, ...]) -> None:
    _layout(tmp_path, *folders)
    source = folder_of(tmp_path, **AUTO)
    source.prepare()
    assert source.classes == tuple(sorted(folders))
    assert source.found["splits"] == []


@pytest.mark.parametrize("splits", [["train"], ["train", "train"], ["train", "nowhere"], ["a", "b", "c"]])
def test_impossible_splits_are_refused(tmp_path: Path, splits: list[str]) -> None:
    _layout(tmp_path, "train", "test")
    with pytest.raises(UserError, match=r"type .*splits=|type data.source.splits=auto"):
        folder_of(tmp_path, splits=splits).prepare()


def test_checkpoints_of_before_read_their_folder_as_before(tmp_path: Path) -> None:
    _layout(tmp_path, "train/cat", "val/cat")
    source = folder_of(tmp_path)
    source.prepare()
    assert source.classes == ("train", "val")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda folder: (folder / "bird").mkdir(), "no images of the class bird"),
        (lambda folder: (folder / "twin").symlink_to(folder / "cat"), "no images of the class twin"),
        (lambda folder: fill(folder, 3, start=50), "3 images lie beside the classes"),
        (lambda folder: (folder / "notes.heic").write_text(""), r"left out 1 files .* \(1 .heic\)"),
        (lambda folder: save(folder / "bird" / "a.png").write_bytes(b""), "no images of the class bird"),
    ],
)
def test_what_may_be_a_mistake_is_named(tmp_path: Path, make: Any, line: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    _layout(tmp_path, "cat", "dog")
    folder_of(tmp_path, **AUTO).prepare()
    assert not re.search(line, caplog.text)
    make(tmp_path / "in")
    folder_of(tmp_path, on_error="skip", **AUTO).prepare()
    assert len(re.findall(line, caplog.text)) == 1


def test_a_single_folder_of_folders_is_named_and_its_suggestion_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _layout(tmp_path, "data/cat", "data/dog")
    folder_of(tmp_path, **AUTO).prepare()
    suggestion = caplog.text.rpartition("type data.source.folder=")[2].split()[0]
    source = ImageFolder(suggestion, [3, 4, 4], tmp_path / "out", **AUTO)  # type: ignore[arg-type]
    source.prepare()
    assert source.classes == ("cat", "dog")


def test_a_class_without_training_images_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _layout(tmp_path, "train/cat", "test/cat", "test/dog")
    folder_of(tmp_path, **AUTO).prepare()
    assert "no training images of the class dog" in caplog.text


@pytest.mark.parametrize("name", [b"caf\xe9", "\u732b".encode(), b"two\nlines"])
def test_every_name_of_a_folder_is_the_name_of_a_class(tmp_path: Path, name: bytes) -> None:
    _layout(tmp_path, "dog")
    fill(tmp_path / "in" / os.fsdecode(name), 6)
    source = folder_of(tmp_path, **AUTO)
    source.prepare()
    assert len(source.classes) == 2
    assert all(known.isprintable() and known.encode() for known in source.classes)
