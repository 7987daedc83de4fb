"""What picture files become."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.folders import only_image
from vaelab.data.image_files import read_image
from vaelab.runtime.errors import UserError

RED, WHITE = [255, 0, 0], [255, 255, 255]


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


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (5, 3)])
def test_the_shorter_side_fits_and_the_centre_is_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    short = min(size)
    left, top = (width - short) // 2, (height - short) // 2
    picture[top : top + short, left : left + short] = RED
    (tmp_path / "in" / "train").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "in" / "train" / "a.png")
    image = only_image(tmp_path, image_shape=[3, 10, 10])
    inner = image[:, 2:-2, 2:-2]  # the filter sees a little of what is cut off
    assert inner.flatten(1).T.unique(dim=0).tolist() == [RED]
    assert image[1:].max() == 0
    torch.testing.assert_close(image, image.flip(1, 2), atol=1, rtol=0)


def test_scaling_is_antialiased(tmp_path: Path) -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    (tmp_path / "in" / "train").mkdir(parents=True)
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "in" / "train" / "a.png")
    image = only_image(tmp_path, image_shape=[1, 8, 8]).float()
    assert image[:, 2:-2, 2:-2].sub(127.5).abs().max() < 4


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
    assert only_image(tmp_path).flatten(1).T.unique(dim=0).tolist() == [expected]
    grey = only_image(tmp_path, image_shape=[1, 4, 4])
    assert grey.shape == (1, 4, 4)
    luminance = 0.299 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2]
    torch.testing.assert_close(grey.double(), torch.full_like(grey.double(), luminance), atol=0.6, rtol=0)


def test_pictures_are_turned_as_they_say(tmp_path: Path) -> None:
    path = tmp_path / "in" / "train" / "a.png"
    path.parent.mkdir(parents=True)
    _turned(path)
    red = only_image(tmp_path, image_shape=[3, 6, 6])[0]
    assert red[0].tolist() == [255] * 6
    assert red[-1].tolist() == [0] * 6


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
    assert torch.equal(torch.tensor(image), only_image(tmp_path))
    assert told == ["cropped from 31 x 50 to 31 x 31", "scaled from 31 x 31 to 4 x 4"]
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="one.png cannot be read"):
        read_image(path, (3, 4, 4))
