"""The range of grey values in files of more than 8 bits, and what is said of the files of a folder."""

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.folders import fill, folder_of, save
from tests.trainings import trained
from vaelab.data.image_files import read_image
from vaelab.data.image_survey import range_of, survey
from vaelab.runs import checkpoint
from vaelab.runtime.errors import UserError

AUTO = {"splits": "auto", "pixel_range": "auto"}
SHAPE = (1, 4, 4)


def _write(folder: Path, images: list[np.ndarray], suffix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, values in enumerate(images):
        Image.fromarray(values).save(folder / f"{i}{suffix}")


def _ramps(top: float, dtype: Any) -> list[np.ndarray]:
    """Constant images of the same size, from black to this value."""
    return [np.full((4, 4), share * top).astype(dtype) for share in np.linspace(0, 1, 9)]


def _found(tmp_path: Path, **options: Any) -> tuple[list[int], Any]:
    """The grey of each image, in ascending order, and the range that was found."""
    source = folder_of(tmp_path, image_shape=SHAPE, **{**AUTO, **options})
    images = torch.cat([source.load(train).images for train in (True, False)])
    return sorted(images[:, 0, 0, 0].tolist()), source.pixel_range


@pytest.mark.parametrize(
    ("top", "dtype", "suffix", "white"),
    [
        (255, np.uint16, ".png", 255),
        (1023, np.uint16, ".png", 1023),
        (4095, np.uint16, ".png", 4095),
        (4000, np.uint16, ".tif", 4095),
        (16_383, np.uint16, ".png", 16_383),
        (65_535, np.uint16, ".png", 65_535),
        (1, np.uint16, ".png", 1),
        (255, np.int32, ".tif", 255),
        (4095, np.int32, ".tif", 4095),
        (1.0, np.float32, ".tif", 1),
        (0.5, np.float32, ".tif", 1),
        (255.0, np.float32, ".tif", 255),
        (200.0, np.float32, ".tif", 255),
    ],
)
def test_the_range_is_that_of_all_images_and_brightness_is_kept(
    tmp_path: Path, top: float, dtype: Any, suffix: str, white: float, caplog: pytest.LogCaptureFixture
) -> None:
    ramps = _ramps(top, dtype)
    _write(tmp_path / "in", ramps, suffix)
    greys, found = _found(tmp_path)
    assert found == (0, white)
    assert greys == [round(255 * float(values[0, 0]) / white) for values in ramps]
    assert len(re.findall(f"9 images have more than 8 bits.*0 becomes black and {white} white", caplog.text)) == 1


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-1024, 3071, np.int32),
        (0, 100_000, np.int32),
        (0, 5, np.uint16),
        (-1.0, 1.0, np.float32),
        (0, 20.0, np.float32),
        (0, 4095.0, np.float32),
    ],
)
def test_a_range_that_values_do_not_tell_is_asked_for_and_the_suggestion_works(
    tmp_path: Path, low: float, high: float, dtype: Any
) -> None:
    _write(tmp_path / "in", [np.full((4, 4), value).astype(dtype) for value in (low, (low + high) / 2, high)], ".tif")
    with pytest.raises(UserError, match="does not tell what is black and white: type e.g. data.source") as caught:
        _found(tmp_path)
    suggestion = re.search(r"pixel_range=\[(.*),(.*)\]$", str(caught.value))
    assert suggestion is not None
    greys, _ = _found(tmp_path, pixel_range=[float(suggestion[1]), float(suggestion[2])])
    assert greys[0] == 0
    assert abs(greys[1] - 127.5) < 30
    assert greys[2] == 255


def test_values_outside_a_chosen_range_are_clipped(tmp_path: Path) -> None:
    _write(tmp_path / "in", [np.full((4, 4), value, np.int32) for value in (-500, 0, 50, 100, 900)], ".tif")
    assert _found(tmp_path, pixel_range=[0, 100])[0] == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("pixel_range", [[1], [3, 3], [5, 1]])
def test_impossible_ranges_are_refused(tmp_path: Path, pixel_range: list[float]) -> None:
    with pytest.raises(UserError, match=r"larger one of white, auto or null; type e.g. 'pixel_range=\[0,4095\]'"):
        folder_of(tmp_path, pixel_range=pixel_range)


def test_what_cannot_be_read_with_any_range_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "in", [np.full((4, 4), value, np.float32) for value in (0, np.nan, 1)], ".tif")
    with pytest.raises(UserError, match="not all finite numbers: convert them"):
        _found(tmp_path)


def test_images_of_8_bits_are_read_as_before_and_share_the_cache(tmp_path: Path) -> None:
    fill(tmp_path / "in", 12)
    before = folder_of(tmp_path).load(train=True).images.clone()
    arrays = list((tmp_path / "out").glob("*.npy"))
    assert torch.equal(folder_of(tmp_path, **AUTO).load(train=True).images, before)
    assert list((tmp_path / "out").glob("*.npy")) == arrays


def test_checkpoints_of_before_read_their_images_as_before(tmp_path: Path) -> None:
    _write(tmp_path / "in", _ramps(4095, np.uint16), ".png")
    greys, found = _found(tmp_path, pixel_range=None)
    assert found is None
    assert max(greys) == round(4095 / 257)


def test_the_range_that_was_found_is_not_changed_by_new_files(tmp_path: Path) -> None:
    _write(tmp_path / "in", _ramps(4095, np.uint16), ".png")
    found = folder_of(tmp_path, image_shape=SHAPE, **AUTO).found
    Image.fromarray(np.full((4, 4), 60_000, np.uint16)).save(tmp_path / "in" / "bright.png")
    assert _found(tmp_path)[1] == (0, 65_535)
    greys, kept = _found(tmp_path, **found)
    assert kept == (0, 4095)
    assert greys.count(255) == 2


def test_files_are_surveyed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "in", _ramps(4095, np.uint16), ".png")
    _found(tmp_path)
    monkeypatch.setattr("vaelab.data.image_cache.survey", lambda *_: pytest.fail("surveyed again"))
    assert _found(tmp_path)[1] == (0, 4095)


def test_colours_of_16_bits_that_pillow_would_make_black_are_refused(tmp_path: Path) -> None:
    def colours(top: int) -> Path:
        path = tmp_path / f"{top}.png"
        path.write_bytes(_png_of_16_bits(np.full((4, 4, 3), top, ">u2")))
        return path

    with pytest.raises(UserError, match="16 bits.*convert them to 8 bits"):
        range_of(survey([colours(4095)], (3, 4, 4)), "here", "")
    assert range_of(survey([colours(60_000)], (3, 4, 4)), "here", "") is None


def _png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG file of colours of 16 bits, which Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _small(folder: Path) -> None:
    for i in range(5):
        save(folder / f"{i}.png", size=(20, 30))


def _frames(folder: Path) -> None:
    first, second = Image.new("RGB", (70, 70), "red"), Image.new("RGB", (70, 70), "blue")
    for suffix in ("gif", "tif", "webp"):
        first.save(folder / f"a.{suffix}", save_all=True, append_images=[second])
    first.save(folder / "b.tif")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            _small,
            r"5 of 5 images are scaled up to 64 x 64: their shorter side has 20 .* type 'data.image_shape=\[3,20,20",
        ),
        (_frames, "3 files have several frames or pages: only the first one counts"),
    ],
)
def test_unexpected_conversions_are_named_once(
    tmp_path: Path, make: Callable[[Path], None], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    folder_of(tmp_path, image_shape=[3, 64, 64], **AUTO).prepare()
    assert len(re.findall(line, caplog.text)) == 1
    if "image_shape" in line:  # the suggestion works
        caplog.clear()
        folder_of(tmp_path, image_shape=[3, 20, 20], **AUTO).prepare()
        assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_few_small_images_are_no_reason_to_shrink_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(5):
        save(tmp_path / "in" / f"{i}.png", size=(80, 90))
    save(tmp_path / "in" / "small.png", size=(20, 20))
    folder_of(tmp_path, image_shape=[3, 64, 64], **AUTO).prepare()
    assert "1 of 6 images are scaled up to 64 x 64" in caplog.text
    assert "type" not in caplog.text


def test_one_s_own_files_are_read_with_the_range_of_the_data(tmp_path: Path) -> None:
    _write(tmp_path, [np.full((4, 4), 1000, np.uint16)], ".png")
    image, done = read_image(tmp_path / "0.png", SHAPE, (0, 4095))
    assert np.unique(image).tolist() == [round(255 * 1000 / 4095)]
    assert "black is 0 and white is 4095" in done


def test_a_resumed_training_reads_its_images_as_at_its_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The metrics of both parts would not be comparable otherwise."""
    _write(tmp_path / "in", _ramps(4095, np.uint16), ".png")
    options = [
        "data=image_folder",
        f"data.source.folder={tmp_path / 'in'}",
        f"data.source.cache_dir={tmp_path / 'out'}",
        "data.image_shape=[1,4,4]",
        "model=mlp",
        "latent_dim=2",
        "logger=none",
        "trainer.accelerator=cpu",
        "report=false",
    ]
    run = tmp_path / "run"
    trained(run, *options, "trainer.max_epochs=1")
    Image.fromarray(np.full((4, 4), 60_000, np.uint16)).save(tmp_path / "in" / "bright.png")
    caplog.clear()
    trained(run, *options, "trainer.max_epochs=2", f"ckpt_path={run / 'checkpoints' / 'last.ckpt'}")
    assert "becomes black" not in caplog.text
    for name in ("last", "best"):
        contents = checkpoint.read(run / "checkpoints" / f"{name}.ckpt")
        assert contents["vaelab"]["config"]["found"] == {"splits": [], "pixel_range": [0, 4095]}
