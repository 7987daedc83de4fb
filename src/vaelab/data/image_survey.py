"""What the image files of a folder hold: the range of their greys, their sizes and their frames."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vaelab.data.image_files import DEEP, FORMATS, PixelRange, in_threads
from vaelab.runtime.errors import UserError
from vaelab.runtime.overrides import typed

_FULL_SCALES = (255, 1023, 4095, 16_383, 65_535)  # of sensors and of their files: 8, 10, 12, 14 and 16 bits
_SMALLEST = 16  # pixels: the networks with the most convolutions refuse images that are much smaller
_HALF = 128  # of 255; greys that all are below do not tell whether they are greys of 8 bits


class Survey(NamedTuple):
    """The properties of several image files together; unreadable files do not count.

    Attributes:
        deep: number of grey images whose pixels are integers of more than 8 bits, or floats.
        low, high: the extremes of their pixels.
        is_integer: whether these pixels are integers.
        is_finite: whether these pixels are finite.
        colours: number of coloured images of 16 bits, of which Pillow reads the upper 8 bits.
        brightest: the highest value of these upper bits.
        small: number of images with fewer pixels than the wanted shape, in height or in width.
        sides: the shortest and the longest shorter side of these images, in pixels.
        animated: number of files with several frames or pages.
    """

    deep: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    is_integer: bool = True
    is_finite: bool = True
    colours: int = 0
    brightest: int = 0
    small: int = 0
    sides: tuple[int, int] = (2**31, 0)
    animated: int = 0

    def __add__(self, other: object) -> "Survey":
        """The properties of the files of both."""
        if not isinstance(other, Survey):
            return NotImplemented
        return Survey(
            self.deep + other.deep,
            min(self.low, other.low),
            max(self.high, other.high),
            self.is_integer and other.is_integer,
            self.is_finite and other.is_finite,
            self.colours + other.colours,
            max(self.brightest, other.brightest),
            self.small + other.small,
            (min(self.sides[0], other.sides[0]), max(self.sides[1], other.sides[1])),
            self.animated + other.animated,
        )


def survey(paths: Iterable[Path], image_shape: tuple[int, ...]) -> Survey:
    """The properties of these files. Only the pixels of files with more than 8 bits are decoded."""
    total = Survey()
    for part in in_threads(lambda path: _one(path, image_shape), paths):
        total = total + part
    return total


def _one(path: Path, image_shape: tuple[int, ...]) -> Survey:
    """The properties of one file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            found = _sizes(image, image_shape)._replace(animated=int(getattr(image, "is_animated", False)))
            if image.mode.startswith(DEEP):
                values = np.asarray(image)
                low, high = float(values.min()), float(values.max())
                finite = bool(np.isfinite(values).all())
                integer = np.issubdtype(values.dtype, np.integer)
                return found._replace(deep=1, low=low, high=high, is_integer=bool(integer), is_finite=finite)
            if any(";16" in str(part) for part in getattr(image, "tile", [])):
                return found._replace(colours=1, brightest=int(np.asarray(image.convert("RGB")).max()))
            return found
    except Exception:  # it cannot be read; the decoding names it
        return Survey()


def _sizes(image: Image.Image, image_shape: tuple[int, ...]) -> Survey:
    """Whether an image is smaller than the wanted shape, even if its EXIF orientation turns it."""
    short, long = sorted(image.size)
    wanted = sorted(image_shape[1:])
    if short >= wanted[0] and long >= wanted[1]:
        return Survey()
    return Survey(small=1, sides=(short, short))


def range_of(found: Survey, what: str, remedy: str) -> PixelRange:
    """The values that become black and white in images of more than 8 bits; ``None`` if there are no such images.

    It is that of the whole data set, so that an image which is darker than another stays darker.

    Args:
        found: the properties of all images.
        what: the images, for error messages.
        remedy: what to do, for the error message, with {range} for a range that holds all values.

    Raises:
        UserError: the values do not tell their range.
    """
    if found.colours and found.brightest < 64:
        raise UserError(
            f"{what}: the colours of {found.colours} files have 16 bits and reach only {found.brightest / 256:.0%} of "
            "white, but Pillow reads only the upper 8 bits: convert them to 8 bits"
        )
    if not found.deep:
        return None
    low, high = found.low, found.high
    if found.is_finite and low >= 0:
        if high <= 1:
            return 0.0, 1.0
        scales = [scale for scale in (_FULL_SCALES if found.is_integer else (255,)) if scale >= high]
        if scales and high >= _HALF:
            return 0.0, float(scales[0])
    if not found.is_finite:
        raise UserError(f"{what}: the pixels of {found.deep} files are not all finite numbers: convert them to 8 bits")
    kind = "integers" if found.is_integer else "floating-point numbers"
    values = f"[{low:.9g},{high:.9g}]" if high > low else f"[{low:.9g},{low + 1:.9g}]"
    raise UserError(
        f"{what}: the pixels of {found.deep} files are {kind} from {low:.9g} to {high:.9g}, which does not tell what "
        f"is black and white: {remedy.format(range=values)}"
    )


def remarks(found: Survey, pixel_range: PixelRange, image_shape: tuple[int, ...], count: int) -> list[str]:
    """What is done to the images that a user may not expect, a line for each kind.

    Args:
        found: the properties of all images.
        pixel_range: see :func:`range_of`.
        image_shape: (C, H, W) of the result.
        count: number of images.
    """
    lines = []
    if pixel_range is not None:
        black, white = pixel_range
        lines.append(
            f"{found.deep:,} images have more than 8 bits, with values from {found.low:.9g} to {found.high:.9g}: "
            f"{black:.9g} becomes black and {white:.9g} white (another range: data.source.pixel_range)"
        )
    if found.animated:
        lines.append(f"{found.animated:,} files have several frames or pages: only the first one counts")
    if found.small:
        channels, height, width = image_shape
        least, most = found.sides
        sides = f"{least}" if least == most else f"{least} to {most}"
        # A few small images among large ones are no reason to shrink these.
        is_typical = found.small > count / 2 and least >= _SMALLEST
        advice = f"; to avoid that, type {typed('data.image_shape', [channels, least, least])}" if is_typical else ""
        lines.append(
            f"{found.small:,} of {count:,} images are scaled up to {height} x {width}: their shorter side has {sides} "
            f"pixels{advice}"
        )
    return lines
