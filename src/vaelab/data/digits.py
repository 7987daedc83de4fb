"""Digits: synthetic grey images of handwritten digits, rendered from pen strokes, with their generating factors."""

import hashlib
import logging
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vaelab.data.source import Images
from vaelab.runtime.files import atomic_write
from vaelab.runtime.validation import NonNegativeInt, Seed, checked

log = logging.getLogger(__name__)

FACTOR_RANGES: dict[str, tuple[float, float]] = {
    "angle": (-45.0, 45.0),
    "thickness": (1.6, 3.2),
    "slant": (-0.15, 0.35),
    "scale": (7.8, 9.4),
    "shift_x": (-1.0, 1.0),
    "shift_y": (-1.0, 1.0),
}
"""Range of each factor. A factor is uniform on its range, and independent of the class and of the other factors.

- ``angle``: degrees, positive is counter-clockwise on the screen.
- ``thickness``: mean width of the pen line, pixels.
- ``slant``: shear, pixels to the right per pixel upwards.
- ``scale``: half the height of the pen line before rotation, pixels; a wide digit is smaller, to fit the frame.
- ``shift_x``, ``shift_y``: pixels to the right and down, from the image's centre to the centre of the digit's bounding
  box before rotation.
"""

FACTORS: tuple[str, ...] = tuple(FACTOR_RANGES)
"""Names of the factors in the order of the columns of ``DigitImages.factors``; see ``FACTOR_RANGES``."""

Split = Literal["train", "test"]
Floats = npt.NDArray[np.float64]

# Part of the cache file's name and digest: increase it with every change to the images.
_VERSION = 1
_SPLITS: tuple[Split, ...] = ("train", "test")
_PER_CLASS = 500
_SIZE = 28
_CHUNK = 64

# Amplitudes in units of half a digit's height.
_JITTER = 0.1
_WARP = 0.15
_ASPECT = 0.25
_PRESSURE = 0.22
# The largest distance of a point of the pen line from its centre. It keeps every rotation inside the frame: the largest
# scale, shift and pen width reach 9.4 * 1.12 + 1 + 1.6 * 1.22 = 13.5 of 14 pixels.
_MAX_RADIUS = 1.12
_SAMPLE_STEP = 0.06

# The writing styles of each class. A style is a set of smooth curves, separated by "/". A curve passes through points
# "x,y" of a 100 x 100 box, y pointing down. Curves that share a point stay joined there and form a corner.
_STYLES: tuple[tuple[str, ...], ...] = (
    (
        "50,0 26,13 18,50 28,87 50,100 73,86 82,50 73,13 50,0",
        "54,8 34,4 19,28 16,64 30,94 54,99 77,80 84,44 74,12 54,0 40,18",
        "66,12 44,1 24,18 17,54 28,90 52,100 74,84 81,50 74,20 58,6",
    ),
    (
        "50,0 50,50 50,100",
        "54,0 50,35 48,70 50,100",
        "34,18 45,10 54,0 / 54,0 53,50 52,100",
        "32,20 44,11 52,0 / 52,0 51,50 51,100 / 28,100 51,99 74,100",
    ),
    (
        "22,24 34,6 54,1 74,14 73,36 52,64 20,98 / 20,98 50,97 82,96",
        "24,20 42,2 64,6 73,26 62,52 44,78 26,98 12,90 18,74 36,78 58,96 86,90",
        "20,14 42,3 68,4 74,20 52,54 20,96 / 20,96 50,94 84,97",
        "34,30 24,18 40,2 66,6 74,28 58,58 22,96 / 22,96 40,90 60,97 84,92",
    ),
    (
        "22,14 44,1 70,10 70,32 42,46 / 42,46 72,54 78,78 54,99 18,88",
        "22,14 46,1 70,14 64,38 44,48 36,43 48,42 74,58 72,86 46,100 18,88",
        "22,4 46,3 72,2 / 72,2 58,22 42,40 / 42,40 70,46 80,70 62,96 36,99 16,88",
    ),
    (
        "28,2 22,30 22,56 / 22,56 50,55 84,52 / 66,6 65,50 62,100",
        "62,0 40,32 16,66 / 16,66 50,66 86,64 / 62,0 62,50 62,100",
        "26,4 20,34 30,54 52,54 70,44 / 74,4 70,44 64,100",
    ),
    (
        "30,4 28,22 24,44 / 24,44 48,36 74,48 78,74 56,98 20,92 / 30,4 54,4 80,2",
        "76,4 54,6 36,6 / 36,6 32,24 28,42 / 28,42 52,38 72,54 70,80 48,98 20,90",
        "78,3 56,4 38,10 30,28 38,42 60,50 74,68 64,92 40,99 20,90",
    ),
    (
        "66,2 42,18 26,48 24,78 44,99 68,92 74,70 58,54 38,60 26,76",
        "58,0 36,32 24,66 32,94 54,99 72,84 66,62 46,56 28,70",
        "74,12 60,1 40,14 24,48 26,84 48,100 70,90 74,68 58,54 36,60 26,72",
    ),
    (
        "14,6 46,5 80,3 / 80,3 60,40 46,70 38,100",
        "14,6 46,5 80,3 / 80,3 60,40 46,70 38,100 / 32,53 54,51 76,49",
        "16,22 17,4 / 17,4 48,7 82,3 / 82,3 64,38 53,68 48,100",
        "12,18 26,4 52,7 82,4 / 82,4 66,28 54,60 52,100",
    ),
    (
        "70,14 50,1 30,14 34,36 56,50 74,72 66,94 46,100 26,86 30,66 50,48 68,32 70,14",
        "50,0 30,10 28,32 50,47 72,32 70,10 50,0 / 50,47 26,60 26,88 50,100 74,88 74,60 50,47",
        "76,10 54,2 32,14 36,38 58,52 74,74 60,98 38,98 24,80 38,60 60,42 76,20",
    ),
    (
        "72,20 54,2 30,12 24,34 40,52 60,46 72,20 / 72,20 70,56 66,100",
        "72,20 54,2 30,12 24,34 40,52 60,46 72,20 / 72,20 74,56 64,90 40,100 22,90",
        "70,26 56,4 34,6 24,28 36,50 60,44 74,14 / 74,14 68,54 56,100",
    ),
)


class DigitImages(NamedTuple):
    """Images of digits with their classes and generating factors.

    ``images`` is uint8 of shape (N, 28, 28), 0 for paper and 255 for ink; ``labels`` is int64 of shape (N,), 0 to 9;
    ``factors`` is float32 of shape (N, len(FACTORS)), in the units of ``FACTOR_RANGES``.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    factors: npt.NDArray[np.float32]


class Digits:
    """The digits as a data set: 5,000 training images and 5,000 test images, with their generating factors.

    Args:
        cache_dir: the folder of the cache files; ``None`` renders the images each time.
        seed: the seed of the handwriting; another seed gives another data set.
    """

    name = "Digits"
    classes = tuple("0123456789")
    factor_names = FACTORS

    def __init__(self, cache_dir: str | Path | None, seed: Seed = 0) -> None:
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.seed = seed

    def is_prepared(self) -> bool:
        """Whether the cache holds both splits."""
        return self.cache_dir is not None and all(
            (self.cache_dir / f"{_key(split, self.seed)}.npz").is_file() for split in _SPLITS
        )

    def prepare(self) -> None:
        """Renders the splits that are not in the cache."""
        for split in _SPLITS:
            load_digits(split, self.cache_dir, self.seed)

    def load(self, train: bool) -> Images:
        """The 5,000 training images or the 5,000 test images."""
        images, labels, factors = load_digits("train" if train else "test", self.cache_dir, self.seed)
        return Images(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels), torch.from_numpy(factors))


@checked
def load_digits(split: Split, cache_dir: Path | str | None, seed: NonNegativeInt = 0) -> DigitImages:
    """The 5,000 images of a split, 500 of each class in shuffled order, from the cache if they are in it.

    A missing, damaged or foreign cache file is replaced. If the folder is ``None`` or not writable, the images are
    rendered each time, in about a second. ``seed`` determines both splits, which are independent of each other.

    Raises:
        ValueError: the split is unknown, or the seed is negative.
    """
    key = _key(split, seed)
    path = None if cache_dir is None else Path(cache_dir) / f"{key}.npz"
    digits = None if path is None else _read(path, key)
    if digits is None:
        order_seed, image_seed = np.random.SeedSequence(seed).spawn(2)[_SPLITS.index(split)].spawn(2)
        labels = np.repeat(np.arange(10), _PER_CLASS)
        labels = labels[np.argsort(_generator(order_seed).random(len(labels)), kind="stable")]
        digits = render_digits(labels, image_seed)
        if path is not None:
            _write(path, key, digits)
    return digits


def _key(split: Split, seed: int) -> str:
    """The name of a cache file without its suffix."""
    return f"digits-v{_VERSION}-seed{seed}-{split}"


def render_digits(
    labels: npt.ArrayLike, seed: int | np.random.SeedSequence, factors: npt.ArrayLike | None = None
) -> DigitImages:
    """Renders one image per label, with random handwriting and with random or given factors.

    Image i depends only on ``seed``, i, its label and its factors. Calls that differ only in ``factors`` therefore
    show the same handwriting.

    Args:
        labels: integers from 0 to 9, shape (N,).
        seed: the seed of the handwriting and of the random factors.
        factors: shape (N, len(FACTORS)); they may exceed ``FACTOR_RANGES``. ``None`` draws them from these ranges.

    Raises:
        ValueError: labels or factors have another shape or type, a factor is not finite, or a thickness or scale is not
            positive.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or np.any((labels < 0) | (labels > 9)):
        raise ValueError("labels must be a 1-D array of integers from 0 to 9")
    # One row of uniform numbers per image, enough for the largest style. Only ``random`` is used, because its scaling
    # is exact: other distributions may round differently on another platform. Sine and cosine also differ there in
    # their last bits, but the rounding to grey values hides it.
    max_points = max(len(points) for styles in map(_styles, range(10)) for points, _ in styles)
    rows = _generator(seed).random((len(labels), len(FACTORS) + 8 + 6 * max_points))
    if factors is None:
        low, high = np.array(list(FACTOR_RANGES.values())).T
        factors = low + (high - low) * rows[:, : len(FACTORS)]
    # Values are rounded before use, so that the stored factors reproduce the images exactly.
    values = np.array(factors, dtype=np.float32)
    if values.shape != (len(labels), len(FACTORS)) or not np.isfinite(values).all():
        raise ValueError(f"factors must be finite and of shape ({len(labels)}, {len(FACTORS)})")
    if np.any(values[:, [FACTORS.index("thickness"), FACTORS.index("scale")]] <= 0):
        raise ValueError("thickness and scale must be positive")

    images = np.empty((len(labels), _SIZE, _SIZE), dtype=np.uint8)
    for label in range(10):
        styles = _styles(label)
        choice = np.where(labels == label, (rows[:, len(FACTORS)] * len(styles)).astype(np.int64), -1)
        for index, (points, basis) in enumerate(styles):
            members = np.flatnonzero(choice == index)
            for start in range(0, len(members), _CHUNK):
                chunk = members[start : start + _CHUNK]
                shape = rows[chunk, len(FACTORS) + 1 :].T
                images[chunk] = _draw(points, basis, shape, values[chunk].T.astype(np.float64))
    return DigitImages(images, labels.astype(np.int64), values)


def _generator(seed: int | np.random.SeedSequence) -> np.random.Generator:
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return np.random.Generator(np.random.PCG64(sequence))


@cache
def _styles(label: int) -> tuple[tuple[Floats, Floats], ...]:
    """The styles of a class: M control points, (M, 2), and the (P, M) map from them to P pen positions."""
    return tuple(_compile(style) for style in _STYLES[label])


def _compile(style: str) -> tuple[Floats, Floats]:
    curves = [[tuple(map(float, point.split(","))) for point in curve.split()] for curve in style.split("/")]
    names = list(dict.fromkeys(point for curve in curves for point in curve))
    points = np.array(names) / 50 - 1
    blocks = []
    for curve in curves:
        select = np.eye(len(names))[[names.index(point) for point in curve]]
        blocks.append(_spline_basis(points[[names.index(point) for point in curve]]) @ select)
    return points, np.concatenate(blocks)


def _spline_basis(points: Floats) -> Floats:
    """The (P, K) map from K points to P points, about ``_SAMPLE_STEP`` apart, on a smooth curve through them.

    The curve is a cubic Hermite spline, parametrised by chord length, with the tangents of local parabolas.
    """
    chords = np.sqrt(np.sum(np.diff(points, axis=0) ** 2, axis=1))
    eye = np.eye(len(points))
    slopes = np.diff(eye, axis=0) / chords[:, None]
    if len(points) == 2:
        tangents = np.concatenate([slopes, slopes])
    else:
        before, after = chords[:-1, None], chords[1:, None]
        inner = (slopes[:-1] * after + slopes[1:] * before) / (before + after)
        tangents = np.concatenate([2 * slopes[:1] - inner[:1], inner, 2 * slopes[-1:] - inner[-1:]])
    rows = [eye[:1]]
    for k, chord in enumerate(chords):
        count = int(np.ceil(chord / _SAMPLE_STEP))
        t = np.arange(1, count + 1)[:, None] / count
        rest = 1 - t
        rows.append(
            rest * rest * ((1 + 2 * t) * eye[k] + t * chord * tangents[k])
            + t * t * ((3 - 2 * t) * eye[k + 1] - rest * chord * tangents[k + 1])
        )
    return np.concatenate(rows)


def _draw(points: Floats, basis: Floats, uniform: Floats, factors: Floats) -> npt.NDArray[np.uint8]:
    """Renders C images of one style from uniform numbers, (at least 7 + 6 M, C), and factors, (len(FACTORS), C)."""
    angle, thickness, slant, scale, shift_x, shift_y = factors
    x, y, pressure = _pen_path(points, basis, uniform)
    x = x - slant * y
    x -= (x.max(axis=0) + x.min(axis=0)) / 2
    y -= (y.max(axis=0) + y.min(axis=0)) / 2
    half_height = y.max(axis=0)
    size = scale / np.maximum(half_height, np.sqrt((x * x + y * y).max(axis=0)) / _MAX_RADIUS)
    cos, sin = np.cos(np.deg2rad(angle)) * size, np.sin(np.deg2rad(angle)) * size
    x, y = cos * x + sin * y + shift_x, cos * y - sin * x + shift_y

    # The squared distance to a pen position is a column's term plus a row's term: one addition and one minimum per
    # pixel and position. Distances are divided by the pressure, so that the line is wider where the pen presses harder.
    grid = np.arange(_SIZE)[:, None] - (_SIZE - 1) / 2
    columns = ((grid - x[:, None]) / pressure[:, None]) ** 2
    lines = ((grid - y[:, None]) / pressure[:, None]) ** 2
    nearest = np.full((_SIZE, _SIZE, len(angle)), np.inf)
    candidate = np.empty_like(nearest)
    for column, line in zip(columns, lines, strict=True):
        np.add(line[:, None], column[None, :], out=candidate)
        np.minimum(nearest, candidate, out=nearest)
    ink = np.clip(thickness / 2 - np.sqrt(nearest) + 0.5, 0, 1)
    images: npt.NDArray[np.uint8] = np.rint(255 * ink).astype(np.uint8).transpose(2, 0, 1)
    return images


def _pen_path(points: Floats, basis: Floats, uniform: Floats) -> tuple[Floats, Floats, Floats]:
    """x, y and pressure of the pen, each (P, C): the style in C random handwritings."""
    warp = _WARP * (2 * uniform[:6] - 1)
    aspect = 1 + _ASPECT * (2 * uniform[6] - 1)
    # The jitter has a triangular distribution: mostly small, and bounded.
    pairs = uniform[7 : 7 + 6 * len(points)].reshape(3, 2, len(points), -1)
    jitter = pairs[:, 0] + pairs[:, 1] - 1
    x = points[:, :1] + _JITTER * jitter[0]
    y = points[:, 1:] + _JITTER * jitter[1]
    # Smooth deformations of the whole digit: bowed or trapezoid, uneven halves, a tilted or curved base line.
    x, y = (
        aspect * (x + warp[0] * y * y + warp[1] * x * y),
        y + warp[2] * y * y + warp[3] * x + warp[4] * x * x + warp[5] * x * y,
    )
    control = np.stack([x, y, 1 + _PRESSURE * jitter[2]])
    # An explicit sum, because the order of summation in a matrix product depends on the machine.
    path = np.zeros((3, len(basis), control.shape[2]))
    for k in range(len(points)):
        path += basis[:, k, None] * control[:, k, None, :]
    return path[0], path[1], path[2]


def _digest(key: str, digits: DigitImages) -> str:
    digest = hashlib.sha256(key.encode())
    for array in digits:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(path: Path, key: str) -> DigitImages | None:
    try:
        file = path.open("rb")
    except OSError:
        return None
    # A file that another program wrote can raise any error. All of them have the same remedy: render again.
    with file:
        try:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("not an archive of arrays")
            digits = DigitImages(*(archive[name] for name in DigitImages._fields))
            if str(archive["sha256"]) == _digest(key, digits):
                return digits
            reason = "its digest does not match"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    log.warning("replacing the cached digits in %s: %s", path, reason)
    return None


def _write(path: Path, key: str, digits: DigitImages) -> None:
    try:
        with atomic_write(path) as file:
            np.savez(file, **digits._asdict(), sha256=np.array(_digest(key, digits)))
    except OSError as error:
        log.info("the digits are not cached in %s: %s", path.parent, error)
