"""Digits: what the images and factors promise, and what the cache survives."""

import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch

from vaelab.data import digits
from vaelab.data.digits import (
    FACTOR_RANGES,
    FACTORS,
    DigitImages,
    Digits,
    load_digits,
    render_digits,
)

Split = Literal["train", "test"]
Floats = npt.NDArray[np.float64]

PINNED: dict[Split, str] = {
    "train": "3ee0864426a02ed734a6d3076aba673f1e6d7a7daa80407d876f263c609efcc7",
    "test": "edc5d51ddc84374eead781eea880ceb2ec7d8603ec6016171f0e500ad8af6ddd",
}


@pytest.fixture(scope="module")
def train() -> DigitImages:
    return load_digits("train", None)


@pytest.fixture(scope="module")
def test() -> DigitImages:
    return load_digits("test", None)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> DigitImages:
    """Make the splits small, and return the train split, not cached."""
    monkeypatch.setattr(digits, "_PER_CLASS", 3)
    return load_digits("train", None)


def equal(a: DigitImages, b: DigitImages) -> bool:
    same = [np.array_equal(getattr(a, name), getattr(b, name)) for name in DigitImages._fields]
    return all(same) and [array.dtype for array in a] == [array.dtype for array in b]


def factors(count: int, **values: float) -> npt.NDArray[np.float32]:
    """Return the middle of each range, save for the given values."""
    row = [values.get(name, sum(limits) / 2) for name, limits in FACTOR_RANGES.items()]
    return np.tile(np.array(row, dtype=np.float32), (count, 1))


def draw(labels: npt.ArrayLike, **values: float) -> npt.NDArray[np.uint8]:
    return render_digits(labels, 3, factors(len(np.asarray(labels)), **values)).images


def moments(images: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return each image's ink centroid (N, 2) and covariance (N, 2, 2), x to the right and y down."""
    weight = images / images.sum(axis=(1, 2), keepdims=True)
    grid = np.stack(np.meshgrid(np.arange(28.0) - 13.5, np.arange(28.0) - 13.5))
    mean = np.einsum("nij,cij->nc", weight, grid)
    second = np.einsum("nij,cij,dij->ncd", weight, grid, grid)
    return mean, second - mean[:, :, None] * mean[:, None, :]


def axis_angle(images: npt.NDArray[np.uint8]) -> Floats:
    """Return the angle of each image's long axis, degrees counter-clockwise from the x axis, modulo 180."""
    covariance = moments(images)[1]
    return np.rad2deg(np.arctan2(-2 * covariance[:, 0, 1], covariance[:, 0, 0] - covariance[:, 1, 1])) / 2


@pytest.mark.parametrize("split", ["train", "test"])
def test_split_is_balanced_shuffled_and_pinned(split: Split, request: pytest.FixtureRequest) -> None:
    data: DigitImages = request.getfixturevalue(split)
    assert data.images.shape == (5000, 28, 28)
    assert data.images.dtype == np.uint8
    assert data.labels.shape == (5000,)
    assert data.labels.dtype == np.int64
    assert data.factors.shape == (5000, len(FACTORS))
    assert data.factors.dtype == np.float32
    assert np.bincount(data.labels).tolist() == [500] * 10
    assert all(60 <= count <= 140 for count in np.bincount(data.labels[:1000]))
    assert hashlib.sha256(data.images.tobytes()).hexdigest() == PINNED[split]


def test_seed_and_split_fix_the_images(train: DigitImages, test: DigitImages) -> None:
    assert equal(load_digits("train", None, seed=0), train)
    assert not np.array_equal(load_digits("train", None, seed=1).labels, train.labels)
    assert not np.array_equal(test.labels, train.labels)
    assert not set(map(bytes, train.images)) & set(map(bytes, test.images))


def test_an_image_does_not_depend_on_the_others() -> None:
    labels = np.arange(300) % 10
    whole = render_digits(labels, 5)
    part = render_digits(labels[:37], 5)
    assert equal(part, DigitImages(whole.images[:37], whole.labels[:37], whole.factors[:37]))
    labels[1:] = 8
    assert np.array_equal(render_digits(labels, 5).images[0], whole.images[0])
    assert render_digits(labels[:0], 5).images.shape == (0, 28, 28)


def test_factors_reproduce_the_images() -> None:
    first = render_digits(np.arange(10), 11)
    assert equal(render_digits(first.labels, 11, first.factors), first)


def test_factors_are_independent_and_in_range(train: DigitImages) -> None:
    for column, (low, high) in zip(train.factors.T, FACTOR_RANGES.values(), strict=True):
        assert low <= column.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < column.max() <= high
    one_hot = np.eye(10)[train.labels]
    correlation = np.corrcoef(np.concatenate([train.factors, one_hot], axis=1), rowvar=False)[: len(FACTORS)]
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.06


def test_ink_grows_with_thickness(train: DigitImages) -> None:
    labels = np.arange(100) % 10
    assert (draw(labels, thickness=3).mean(axis=(1, 2)) > 1.2 * draw(labels, thickness=2).mean(axis=(1, 2))).all()
    ink = train.images.mean(axis=(1, 2))
    assert np.corrcoef(ink, train.factors[:, FACTORS.index("thickness")])[0, 1] > 0.6


def test_centroid_follows_shift() -> None:
    labels = np.arange(100) % 10
    moved = moments(draw(labels, shift_x=1, shift_y=-0.5))[0] - moments(draw(labels, shift_x=0, shift_y=0))[0]
    assert np.abs(moved - [1, -0.5]).max() < 0.15
    assert np.abs(moved.mean(axis=0) - [1, -0.5]).max() < 0.02


@pytest.mark.parametrize("angle", [-45, -20, 30, 45])
def test_long_axis_of_a_one_follows_angle(angle: float) -> None:
    labels = np.ones(100, dtype=np.int64)
    turned = axis_angle(draw(labels, angle=angle)) - axis_angle(draw(labels, angle=0))
    assert np.abs((turned - angle + 90) % 180 - 90).max() < 3


def test_height_follows_scale_and_lean_follows_slant() -> None:
    ones = np.ones(100, dtype=np.int64)
    rows = [np.any(draw(ones, scale=scale, thickness=2) > 127, axis=2).sum(axis=1) for scale in (8, 9)]
    np.testing.assert_allclose(rows[0].mean(), 2 * 8 + 2, atol=0.6)
    np.testing.assert_allclose(rows[1].mean(), 2 * 9 + 2, atol=0.6)
    upright, leaning = (moments(draw(ones, slant=slant))[1] for slant in (0, 0.3))
    lean = upright[:, 0, 1] / upright[:, 1, 1] - leaning[:, 0, 1] / leaning[:, 1, 1]
    np.testing.assert_allclose(lean, 0.3, atol=0.03)


def test_ink_stays_inside_the_frame(train: DigitImages, test: DigitImages) -> None:
    border = np.ones((28, 28), dtype=bool)
    border[1:-1, 1:-1] = False
    for data in (train, test):
        assert data.images[:, border].max() <= 16
        assert (data.images.max(axis=(1, 2)) == 255).mean() > 0.99
    labels = np.arange(200) % 10
    for angle in range(-45, 46, 15):
        # Half covered would mean that the edge of the ink passes through the middle of the outermost pixels.
        assert draw(labels, angle=angle, thickness=3.2, scale=9.4, shift_x=1, shift_y=1)[:, border].max() < 128


def test_nearest_neighbour_reads_the_digits(train: DigitImages, test: DigitImages) -> None:
    known, asked = (data.images.reshape(5000, -1).astype(np.float32) / 255 for data in (train, test))
    nearest = np.argmin(np.sum(known * known, axis=1) - 2 * asked @ known.T, axis=1)
    assert np.mean(train.labels[nearest] == test.labels) > 0.93


@pytest.mark.parametrize(
    "labels", [[[1]], [10], [-1], [0.5], ["1"]], ids=["2-D", "too large", "negative", "fraction", "text"]
)
def test_bad_labels_are_refused(labels: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match="labels"):
        render_digits(labels, 0)


def test_bad_factors_split_and_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        render_digits([1, 2], 0, factors(1))
    with pytest.raises(ValueError, match="finite"):
        render_digits([1], 0, factors(1, angle=np.nan))
    with pytest.raises(ValueError, match="positive"):
        render_digits([1], 0, factors(1, scale=0))
    with pytest.raises(ValueError, match="split"):
        load_digits("validation", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed"):
        load_digits("train", None, seed=-1)


def test_cache_gives_what_was_rendered(
    tmp_path: Path, few: DigitImages, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "new" / "cache"
    assert equal(load_digits("train", folder), few)
    (file,) = folder.iterdir()
    assert file.name == "digits-v1-seed0-train.npz"
    monkeypatch.setattr(digits, "render_digits", None)
    assert equal(load_digits("train", str(folder)), few)
    assert not caplog.records


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def change_a_pixel(file: Path) -> None:
    arrays = dict(np.load(file))
    arrays["images"][0, 14, 14] ^= 1
    np.savez(file, **arrays)


def add_pickle(file: Path) -> None:
    arrays = dict(np.load(file))
    np.savez(file, **(arrays | {"images": np.array([None])}))


def save_one_array(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))


def from_another_seed(file: Path) -> None:
    load_digits("train", file.parent, seed=1)
    file.with_name(file.name.replace("seed0", "seed1")).replace(file)


def from_another_version(file: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "_VERSION", 0)
        load_digits("train", file.parent)
    file.with_name(file.name.replace("v1", "v0")).replace(file)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        change_a_pixel,
        add_pickle,
        from_another_seed,
        from_another_version,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"no archive"),
        lambda file: np.savez(file, other=np.zeros(3)),
        save_one_array,
    ],
    ids=["truncated", "pixel", "pickle", "seed", "version", "empty", "garbage", "foreign", "npy"],
)
def test_damaged_cache_is_replaced(
    damage: Callable[[Path], object], tmp_path: Path, few: DigitImages, caplog: pytest.LogCaptureFixture
) -> None:
    load_digits("train", tmp_path)
    (file,) = tmp_path.iterdir()
    damage(file)
    assert equal(load_digits("train", tmp_path), few)
    assert [(record.levelno, str(file) in record.message) for record in caplog.records] == [(logging.WARNING, True)]
    caplog.clear()
    assert equal(load_digits("train", tmp_path), few)
    assert not caplog.records
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("blocked", ["folder", "file"])
def test_unwritable_cache_costs_a_log_line(
    blocked: str, tmp_path: Path, few: DigitImages, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    if blocked == "folder":
        folder = tmp_path / "file"
        folder.write_text("in the way")
    else:
        folder = tmp_path
        (folder / "digits-v1-seed0-train.npz").mkdir()
    assert equal(load_digits("train", folder), few)
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert len(list(tmp_path.iterdir())) == 1


def test_simultaneous_first_loads_agree(tmp_path: Path, few: DigitImages, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert all(equal(data, few) for data in pool.map(lambda _: load_digits("train", tmp_path), range(8)))
    assert len(list(tmp_path.iterdir())) == 1
    assert not caplog.records


def test_source_has_balanced_splits_with_factors(tmp_path: Path) -> None:
    source = Digits(tmp_path)
    source.prepare()
    for train in (True, False):
        images, labels, factors = source.load(train)[:3]
        assert images.shape == (5000, 1, 28, 28)
        assert torch.equal(labels.bincount(), torch.full((10,), 500))
        assert factors is not None
        assert factors.shape == (5000, len(FACTORS))
