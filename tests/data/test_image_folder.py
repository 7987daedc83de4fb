"""A folder of images: what pictures become, how they are split, when they are decoded, and what is refused."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from vaelab.data import image_cache, picture_files
from vaelab.data.datamodule import ImageDataModule
from vaelab.data.image_folder import ImageFolder
from vaelab.data.picture_files import read_image
from vaelab.data.source import Images
from vaelab.errors import UserError

RED, WHITE = [255, 0, 0], [255, 255, 255]


def _save(path: Path, colour: Any = (0, 0, 0), size: tuple[int, int] = (9, 7), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def _fill(folder: Path, count: int, start: int = 0) -> None:
    """Images that tell their number by their colour."""
    for i in range(start, start + count):
        _save(folder / f"{i:03}.png", (i, i, i))


def _source(tmp_path: Path, **options: Any) -> ImageFolder:
    return ImageFolder(
        **{"folder": tmp_path / "in", "image_shape": [3, 4, 4], "cache_dir": tmp_path / "out", **options}
    )


def _numbers(images: Images) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def _only(tmp_path: Path, **options: Any) -> torch.Tensor:
    """The one image in the folder, with another one to test with."""
    (tmp_path / "in" / "train").mkdir(exist_ok=True)
    _save(tmp_path / "in" / "test" / "other.png")
    return _source(tmp_path, **options).load(train=True).images[0]


def test_every_image_is_in_one_split_with_the_class_of_its_folder(tmp_path: Path) -> None:
    _fill(tmp_path / "in" / "cat" / "deep" / "deeper", 30)
    _fill(tmp_path / "in" / "dog", 30, start=30)
    source = _source(tmp_path, test_fraction=0.3)
    source.prepare()
    assert source.classes == ("cat", "dog")
    train, test = source.load(train=True), source.load(train=False)
    assert train.images.dtype == torch.uint8
    assert train.images.shape[1:] == (3, 4, 4)
    assert train.labels.dtype == torch.int64
    assert sorted(_numbers(train) + _numbers(test)) == list(range(60))
    assert 8 <= len(test.images) <= 28
    for split in (train, test):
        assert split.labels.tolist() == [int(number >= 30) for number in _numbers(split)]
    # What a data module cuts off at the end is of all classes.
    assert train.labels[-10:].unique().tolist() == [0, 1]


def test_no_image_changes_sides_when_others_are_added(tmp_path: Path) -> None:
    _fill(tmp_path / "in", 40)
    before = _numbers(_source(tmp_path, test_fraction=0.3).load(train=False))
    _fill(tmp_path / "in", 40, start=40)
    after = _numbers(_source(tmp_path, test_fraction=0.3).load(train=False))
    assert [number for number in after if number < 40] == before
    assert len(after) > len(before)
    assert _numbers(_source(tmp_path, test_fraction=0.3, seed=1).load(train=False)) != after


def test_an_official_split_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _fill(tmp_path / "in" / "train" / "cat", 3)
    _fill(tmp_path / "in" / "train" / "dog", 3, start=10)
    _fill(tmp_path / "in" / "test" / "dog", 2, start=20)
    _fill(tmp_path / "in" / "val" / "dog", 2, start=30)
    source = _source(tmp_path)
    train, test = source.load(train=True), source.load(train=False)
    assert sorted(_numbers(train)) == [0, 1, 2, 10, 11, 12]
    assert sorted(_numbers(test)) == [20, 21]
    assert source.classes == ("cat", "dog")
    assert test.labels.tolist() == [1, 1]
    assert "left out 2 images" in caplog.text


def test_one_class_without_subfolders_and_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    _fill(tmp_path / "in", 5)
    for hidden in (".cache/a.png", "__MACOSX/a.png", "._001.png", "notes.txt"):
        _save(tmp_path / "in" / "b.png").replace(tmp_path / "b.png")
        (tmp_path / "in" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "b.png").replace(tmp_path / "in" / hidden)
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    source = _source(tmp_path)
    assert len(source.load(train=True).images) + len(source.load(train=False).images) == 5
    assert source.classes == ("in",)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (5, 3)])
def test_the_shorter_side_fits_and_the_centre_is_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    short = min(size)
    left, top = (width - short) // 2, (height - short) // 2
    picture[top : top + short, left : left + short] = RED
    (tmp_path / "in" / "train").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "in" / "train" / "a.png")
    image = _only(tmp_path, image_shape=[3, 10, 10])
    inner = image[:, 2:-2, 2:-2]  # the filter sees a little of what is cut off
    assert inner.flatten(1).T.unique(dim=0).tolist() == [RED]
    assert image[1:].max() == 0
    torch.testing.assert_close(image, image.flip(1, 2), atol=1, rtol=0)


def test_scaling_is_antialiased(tmp_path: Path) -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    (tmp_path / "in" / "train").mkdir(parents=True)
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "in" / "train" / "a.png")
    image = _only(tmp_path, image_shape=[1, 8, 8]).float()
    assert image[:, 2:-2, 2:-2].sub(127.5).abs().max() < 4


def _palette(path: Path) -> None:
    picture = Image.new("P", (6, 6), 1)
    picture.putpalette([0, 0, 0, *RED])
    picture.save(path)


def _transparent_palette(path: Path) -> None:
    picture = Image.new("P", (6, 6), 1)
    picture.putpalette([0, 0, 0, *RED])
    picture.save(path, transparency=1)


def _sixteen_bit(path: Path) -> None:
    Image.fromarray(np.full((6, 6), 0x8080, np.uint16)).save(path)


def _animated(path: Path) -> None:
    Image.new("RGB", (6, 6), "red").save(path, save_all=True, append_images=[Image.new("RGB", (6, 6), "blue")])


def _turned(path: Path) -> None:
    """Black left of red; turned as it says, red is the upper half."""
    picture = Image.new("RGB", (6, 6))
    picture.paste("red", (3, 0, 6, 6))
    exif = Image.Exif()
    exif[0x0112] = 8
    picture.save(path, exif=exif)


def _plain(mode: str, colour: Any) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (6, 6), colour).save(path)


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("a.png", _plain("RGB", "red"), RED),
        ("a.PNG", _plain("L", 77), [77] * 3),
        ("a.png", _plain("1", 1), WHITE),
        ("a.bmp", _plain("RGB", "red"), RED),
        ("a.tiff", _plain("RGB", "red"), RED),
        ("a.tif", _plain("CMYK", (0, 255, 255, 0)), RED),
        ("a.jpg", _plain("CMYK", (0, 0, 0, 0)), WHITE),
        ("a.jpeg", _plain("L", 128), [128] * 3),
        ("a.webp", _plain("RGBA", (255, 0, 0, 0)), WHITE),
        ("a.png", _plain("RGBA", (0, 0, 0, 127)), [128] * 3),
        ("a.png", _plain("LA", (0, 0)), WHITE),
        ("a.png", _palette, RED),
        ("a.png", _transparent_palette, WHITE),
        ("a.gif", _transparent_palette, WHITE),
        ("a.gif", _animated, RED),
        ("a.png", _sixteen_bit, [128] * 3),
        ("a.tif", _sixteen_bit, [128] * 3),
        ("a.tif", _plain("I", 65_535), WHITE),
        ("a.jpg", _plain("RGB", "white"), WHITE),
        ("misnamed.jpg", lambda path: Image.new("RGB", (6, 6), "red").save(path, format="PNG"), RED),
    ],
)
def test_every_kind_of_picture_gets_its_colour(
    tmp_path: Path, name: str, write: Callable[[Path], None], expected: list[int]
) -> None:
    path = tmp_path / "in" / "train" / name
    path.parent.mkdir(parents=True)
    write(path)
    assert _only(tmp_path).flatten(1).T.unique(dim=0).tolist() == [expected]
    grey = _only(tmp_path, image_shape=[1, 4, 4])
    assert grey.shape == (1, 4, 4)
    luminance = 0.299 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2]
    torch.testing.assert_close(grey.double(), torch.full_like(grey.double(), luminance), atol=0.6, rtol=0)


def test_pictures_are_turned_as_they_say(tmp_path: Path) -> None:
    path = tmp_path / "in" / "train" / "a.png"
    path.parent.mkdir(parents=True)
    _turned(path)
    red = _only(tmp_path, image_shape=[3, 6, 6])[0]
    assert red[0].tolist() == [255] * 6
    assert red[-1].tolist() == [0] * 6


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that have been decoded."""
    names: list[str] = []
    decode = picture_files._image

    def note(path: Path, image_shape: tuple[int, ...]) -> Any:
        names.append(path.name)
        return decode(path, image_shape)

    monkeypatch.setattr(picture_files, "_image", note)
    return names


def test_images_are_decoded_once_and_again_when_something_changes(tmp_path: Path, decoded: list[str]) -> None:
    def changed(**options: Any) -> bool:
        decoded.clear()
        source = _source(tmp_path, **options)
        source.prepare()
        source.load(train=True)
        return bool(decoded)

    folder, cache = tmp_path / "in", tmp_path / "out"
    _fill(folder, 6)
    assert changed()
    assert not changed()
    assert not changed(test_fraction=0.5, on_error="skip")
    assert changed(image_shape=[1, 4, 4])
    assert not changed()
    _fill(folder, 1, start=6)
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
    _fill(tmp_path / "in", 6)
    source = _source(tmp_path)
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
    _fill(tmp_path / "in", 20)
    first, second = _source(tmp_path), _source(tmp_path)
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


def _break(path: Path, how: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "truncated":
        content = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(content, "png")
        path.write_bytes(content.getvalue()[:900])
    elif how == "html":
        path.write_text("<html>not found</html>")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "float":
        Image.new("F", (5, 5), 0.5).save(path, "tiff")
    elif how == "32-bit":
        Image.new("I", (5, 5), 70_000).save(path, "tiff")
    else:
        path.symlink_to(path.with_name("nowhere.png"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "OSError: .*truncated"),
        ("html", "begins with b'<html>not fo'"),
        ("empty", "it is empty"),
        ("float", "floating-point numbers"),
        ("32-bit", "more than 16 bits"),
        ("dangling", "FileNotFoundError"),
    ],
)
def test_an_image_that_cannot_be_read_is_named_or_skipped(
    tmp_path: Path, how: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    _fill(tmp_path / "in", 8)
    _break(tmp_path / "in" / "bad.png", how)
    with pytest.raises(
        UserError, match=rf"image bad.png in .*in cannot be read \(.*{message}.*on_error=skip"
    ) as caught:
        _source(tmp_path).prepare()
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []
    source = _source(tmp_path, on_error="skip")
    source.prepare()
    train, test = source.load(train=True), source.load(train=False)
    assert sorted(_numbers(train) + _numbers(test)) == list(range(8))
    assert caplog.text.count("left out 1 of the 9 images") == 1
    with pytest.raises(UserError, match="image bad.png"):  # also where the others are decoded already
        _source(tmp_path).load(train=True)


def test_what_has_become_readable_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(tmp_path / "in", 8)
    decode = picture_files._image

    def forbid(path: Path, image_shape: tuple[int, ...]) -> Any:
        if path.name == "003.png":
            raise PermissionError("forbidden")
        return decode(path, image_shape)

    monkeypatch.setattr(picture_files, "_image", forbid)
    assert 3 not in _numbers(_source(tmp_path, on_error="skip").load(train=True))
    monkeypatch.undo()
    source = _source(tmp_path)
    assert 3 in _numbers(source.load(train=True)) + _numbers(source.load(train=False))


def test_folders_that_are_no_folders_of_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a folder of images: type data.source.folder="):
        _source(tmp_path, folder=None).prepare()
    with pytest.raises(UserError, match="in does not exist: type data.source.folder="):
        _source(tmp_path).prepare()
    with pytest.raises(UserError, match="a.png is a file: type data.source.folder="):
        _source(tmp_path, folder=_save(tmp_path / "a.png")).prepare()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("")
    with pytest.raises(UserError, match="in holds no images, and 1 other files .*.png, .*type data.source.folder="):
        _source(tmp_path).prepare()
    _fill(tmp_path / "in", 1)
    with pytest.raises(UserError, match="has 1 images to train with and 0 to test with .*test_fraction=0.1"):
        _source(tmp_path).prepare()
    _fill(tmp_path / "in", 1, start=1)
    assert len(_source(tmp_path).load(train=False).images) == 1
    _fill(tmp_path / "in" / "train", 3)
    (tmp_path / "in" / "test").mkdir()
    with pytest.raises(UserError, match="3 images to train with and 0 to test with .*folders train and test"):
        _source(tmp_path).prepare()
    _break(tmp_path / "bad" / "a.png", "html")
    with pytest.raises(UserError, match="none of the 1 images in .*bad can be read; the first one is a.png"):
        _source(tmp_path, folder=tmp_path / "bad", on_error="skip").prepare()


def test_folders_that_may_not_be_read_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(tmp_path / "in", 3)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="cannot be kept in .*out, .*File exists.*type data.source.cache_dir="):
        _source(tmp_path).prepare()

    def forbid(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", forbid)
    with pytest.raises(UserError, match=r"in cannot be read \(Permission denied\).*type data.source.folder="):
        _source(tmp_path).prepare()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    _fill(tmp_path / "in", 3)
    monkeypatch.setattr(image_cache, "_write_header", fail)
    with pytest.raises(UserError, match=r"takes 0 MB \(No space left on device\): make room, or type"):
        _source(tmp_path).prepare()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("how", ["killed", "an image that cannot be read", "a journal of other files"])
def test_what_is_interrupted_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str], how: str
) -> None:
    _fill(tmp_path / "in", 12)
    expected = [_source(tmp_path).load(train).images.clone() for train in (True, False)]
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    decoded.clear()
    monkeypatch.setattr(image_cache, "_NOTE_SECONDS", -1)
    read_all = picture_files.read_all

    def interrupted(paths: Any, image_shape: tuple[int, ...]) -> Any:
        for number, result in enumerate(read_all(paths, image_shape)):
            if number == 7:
                if how != "an image that cannot be read":
                    raise KeyboardInterrupt
                result = "it is gone"
            yield result

    monkeypatch.setattr(image_cache, "read_all", interrupted)
    with pytest.raises((KeyboardInterrupt, UserError)):
        _source(tmp_path).prepare()
    (journal,) = (tmp_path / "out").glob(".*.partial.json")
    assert json.loads(journal.read_text())["done"] == 7
    if how == "a journal of other files":
        journal.write_text('{"done": 700, "unreadable": {}}')
    monkeypatch.setattr(image_cache, "read_all", read_all)
    decoded.clear()
    source = _source(tmp_path)
    source.prepare()
    assert len(decoded) == (12 if how == "a journal of other files" else 5)
    for images, train in zip(expected, (True, False), strict=True):
        assert torch.equal(source.load(train).images, images)
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".npy"]


def test_what_was_begun_of_files_that_have_changed_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(tmp_path / "in", 6)
    monkeypatch.setattr(image_cache, "_NOTE_SECONDS", -1)
    _break(tmp_path / "in" / "bad.png", "empty")
    with pytest.raises(UserError, match="bad.png"):
        _source(tmp_path).prepare()
    assert len(list((tmp_path / "out").glob(".*.partial*"))) == 2
    (tmp_path / "in" / "bad.png").unlink()
    _source(tmp_path).prepare()
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".npy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": [2, 4, 4]}, r"type e.g. data.image_shape=\[1,64,64\]"),
        ({"image_shape": [3, 4]}, r"data.image_shape=\[3, 4\]"),
        ({"image_shape": [3, 0, 4]}, "data.image_shape"),
        ({"test_fraction": 0}, "data.source.test_fraction must lie between 0 and 1"),
        ({"test_fraction": 1}, "data.source.test_fraction must lie between 0 and 1"),
        ({"on_error": "ignore"}, "choose from fail, skip"),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _source(tmp_path, **options)


def test_progress_is_shown_when_it_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(image_cache, "get_console", lambda: console)
    _fill(tmp_path / "in", 5)
    _source(tmp_path).prepare()
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    monkeypatch.setattr(image_cache, "_PATIENCE_SECONDS", -1)
    _fill(tmp_path / "in", 5)
    _source(tmp_path).prepare()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "decoding images" in shown
    assert "left" in shown


def test_a_data_module_makes_batches_of_them(tmp_path: Path) -> None:
    _fill(tmp_path / "in", 30)
    module = ImageDataModule(_source(tmp_path), [3, 4, 4], batch_size=8, validation=5)
    module.prepare_data()
    module.setup()
    assert sum(len(split.images) for split in module.splits.values()) == 30
    for x, y in module.train_dataloader():
        assert x.shape[1:] == (3, 4, 4)
        assert 0 <= x.min() <= x.max() <= 1
        assert len(x) == len(y)


@pytest.mark.parametrize(
    ("make", "shape", "done"),
    [
        (_plain("L", 7), (1, 7, 9), []),
        (_plain("1", 1), (3, 7, 9), []),
        (_plain("RGB", (1, 2, 3)), (1, 7, 9), ["made grey"]),
        (_plain("RGBA", (1, 2, 3, 4)), (3, 7, 9), ["laid on white"]),
        (_animated, (3, 2, 2), ["the first of 2 frames"]),
        (_turned, (3, 4, 2), ["turned as its EXIF orientation says"]),
    ],
)
def test_what_is_done_to_one_file_is_told(
    tmp_path: Path, make: Callable[[Path], None], shape: tuple[int, int, int], done: list[str]
) -> None:
    make(tmp_path / "one.png")
    image, told = read_image(tmp_path / "one.png", shape)
    assert image.shape == shape
    assert [text for text in told if not text.startswith(("cropped", "scaled"))] == done


def test_one_file_becomes_what_it_would_in_a_folder(tmp_path: Path) -> None:
    chance = np.random.default_rng(0).integers(0, 256, (50, 31, 3), dtype=np.uint8)
    path = tmp_path / "in" / "train" / "one.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(chance).save(path)
    image, told = read_image(path, (3, 4, 4))
    assert torch.equal(torch.tensor(image), _only(tmp_path))
    assert told == ["cropped from 31 x 50 to 31 x 31", "scaled from 31 x 31 to 4 x 4"]
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="one.png cannot be read"):
        read_image(path, (3, 4, 4))
