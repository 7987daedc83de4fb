"""A folder of images: how it is split, what its classes are, and what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.folders import fill, folder_of, numbers, save, spoil
from vaelab.data import image_files
from vaelab.data.datamodule import ImageDataModule
from vaelab.runtime.errors import UserError


def test_every_image_is_in_one_split_with_the_class_of_its_folder(tmp_path: Path) -> None:
    fill(tmp_path / "in" / "cat" / "deep" / "deeper", 30)
    fill(tmp_path / "in" / "dog", 30, start=30)
    source = folder_of(tmp_path, test_fraction=0.3)
    source.prepare()
    assert source.classes == ("cat", "dog")
    train, test = source.load(train=True), source.load(train=False)
    assert train.images.dtype == torch.uint8
    assert train.images.shape[1:] == (3, 4, 4)
    assert train.labels.dtype == torch.int64
    assert sorted(numbers(train) + numbers(test)) == list(range(60))
    assert 8 <= len(test.images) <= 28
    for split in (train, test):
        assert split.labels.tolist() == [int(number >= 30) for number in numbers(split)]
    # What a data module cuts off at the end is of all classes.
    assert train.labels[-10:].unique().tolist() == [0, 1]


def test_no_image_changes_sides_when_others_are_added(tmp_path: Path) -> None:
    fill(tmp_path / "in", 40)
    before = numbers(folder_of(tmp_path, test_fraction=0.3).load(train=False))
    fill(tmp_path / "in", 40, start=40)
    after = numbers(folder_of(tmp_path, test_fraction=0.3).load(train=False))
    assert [number for number in after if number < 40] == before
    assert len(after) > len(before)
    assert numbers(folder_of(tmp_path, test_fraction=0.3, seed=1).load(train=False)) != after


def test_an_official_split_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "in" / "train" / "cat", 3)
    fill(tmp_path / "in" / "train" / "dog", 3, start=10)
    fill(tmp_path / "in" / "test" / "dog", 2, start=20)
    fill(tmp_path / "in" / "val" / "dog", 2, start=30)
    source = folder_of(tmp_path)
    train, test = source.load(train=True), source.load(train=False)
    assert sorted(numbers(train)) == [0, 1, 2, 10, 11, 12]
    assert sorted(numbers(test)) == [20, 21]
    assert source.classes == ("cat", "dog")
    assert test.labels.tolist() == [1, 1]
    assert "left out 2 images" in caplog.text


def test_one_class_without_subfolders_and_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path / "in", 5)
    for hidden in (".cache/a.png", "__MACOSX/a.png", "._001.png", "notes.txt"):
        save(tmp_path / "in" / "b.png").replace(tmp_path / "b.png")
        (tmp_path / "in" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "b.png").replace(tmp_path / "in" / hidden)
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    source = folder_of(tmp_path)
    assert len(source.load(train=True).images) + len(source.load(train=False).images) == 5
    assert source.classes == ("in",)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "OSError: .*truncated"),
        ("html", "begins with b'<html>not fo'"),
        ("empty", "it is empty"),
        ("unknown to Pillow", "a TIFF file of a kind that Pillow does not know"),
        ("float", "floating-point numbers"),
        ("32-bit", "more than 16 bits"),
        ("dangling", "FileNotFoundError"),
    ],
)
def test_an_image_that_cannot_be_read_is_named_or_skipped(
    tmp_path: Path, how: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "in", 8)
    spoil(tmp_path / "in" / "bad.png", how)
    with pytest.raises(
        UserError, match=rf"image bad.png in .*in cannot be read \(.*{message}.*on_error=skip"
    ) as caught:
        folder_of(tmp_path).prepare()
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []
    source = folder_of(tmp_path, on_error="skip")
    source.prepare()
    train, test = source.load(train=True), source.load(train=False)
    assert sorted(numbers(train) + numbers(test)) == list(range(8))
    assert caplog.text.count("left out 1 of the 9 images") == 1
    with pytest.raises(UserError, match="image bad.png"):  # also where the others are decoded already
        folder_of(tmp_path).load(train=True)


def test_what_has_become_readable_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", 8)
    decode = image_files._image

    def forbid(path: Path, *options: Any) -> Any:
        if path.name == "003.png":
            raise PermissionError("forbidden")
        return decode(path, *options)

    monkeypatch.setattr(image_files, "_image", forbid)
    assert 3 not in numbers(folder_of(tmp_path, on_error="skip").load(train=True))
    monkeypatch.undo()
    source = folder_of(tmp_path)
    assert 3 in numbers(source.load(train=True)) + numbers(source.load(train=False))


def test_folders_that_are_no_folders_of_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a folder of images: type data.source.folder="):
        folder_of(tmp_path, folder=None).prepare()
    with pytest.raises(UserError, match="in does not exist: type data.source.folder="):
        folder_of(tmp_path).prepare()
    with pytest.raises(UserError, match="a.png is a file: type data.source.folder="):
        folder_of(tmp_path, folder=save(tmp_path / "a.png")).prepare()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("")
    with pytest.raises(UserError, match="in holds no images, and 1 other files .*.png, .*type data.source.folder="):
        folder_of(tmp_path).prepare()
    fill(tmp_path / "in", 1)
    with pytest.raises(UserError, match="has 1 images to train with and 0 to test with .*test_fraction=0.1"):
        folder_of(tmp_path).prepare()
    fill(tmp_path / "in", 1, start=1)
    assert len(folder_of(tmp_path).load(train=False).images) == 1
    fill(tmp_path / "in" / "train", 3)
    (tmp_path / "in" / "test").mkdir()
    with pytest.raises(UserError, match="3 images to train with and 0 to test with .*folders train and test"):
        folder_of(tmp_path).prepare()
    spoil(tmp_path / "bad" / "a.png", "html")
    with pytest.raises(UserError, match="none of the 1 images in .*bad can be read; the first one is a.png"):
        folder_of(tmp_path, folder=tmp_path / "bad", on_error="skip").prepare()


def test_folders_that_may_not_be_read_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", 3)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="cannot be kept in .*out, .*File exists.*train with data.source.cache_dir="):
        folder_of(tmp_path).prepare()

    def forbid(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", forbid)
    with pytest.raises(UserError, match=r"in cannot be read \(Permission denied\).*type data.source.folder="):
        folder_of(tmp_path).prepare()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": [2, 4, 4]}, r"type e.g. data.image_shape=\[1,64,64\]"),
        ({"image_shape": [3, 4]}, r"image_shape=\[3,4\]: it must be a list of 3"),
        ({"image_shape": [3, 0, 4]}, r"image_shape=\[3,0,4\]: it must be"),
        ({"test_fraction": 0}, "test_fraction=0: it must be a number above 0 and below 1"),
        ({"test_fraction": 1}, "test_fraction=1: it must be a number above 0 and below 1"),
        ({"on_error": "ignore"}, "on_error=ignore: it must be fail or skip"),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        folder_of(tmp_path, **options)


def test_a_data_module_makes_batches_of_them(tmp_path: Path) -> None:
    fill(tmp_path / "in", 30)
    module = ImageDataModule(folder_of(tmp_path), [3, 4, 4], batch_size=8, validation=5)
    module.prepare_data()
    module.setup()
    assert sum(len(split.images) for split in module.splits.values()) == 30
    for x, y, _ in module.train_dataloader():
        assert x.shape[1:] == (3, 4, 4)
        assert 0 <= x.min() <= x.max() <= 1
        assert len(x) == len(y)
