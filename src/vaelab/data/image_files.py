"""Image files of any size and format, read as arrays of one shape."""

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from vaelab.runtime.errors import UserError, first_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")  # some of Pillow's other formats start other programs
DEEP = ("I", "F")  # the beginning of Pillow's modes of more than 8 bits
_EXIF_ORIENTATION = 0x0112
_TIFF = (b"II*\0", b"MM\0*")  # the beginnings of its files

PixelRange = tuple[float, float] | None  # the values that become black and white, see :func:`image_or_reason`
Image8 = npt.NDArray[np.uint8]
T = TypeVar("T")


def read_all(
    paths: Iterable[Path], image_shape: tuple[int, ...], pixel_range: PixelRange = None
) -> Generator[Image8 | str, None, None]:
    """Each image, or the reason why it cannot be read, in order, see :func:`image_or_reason`."""
    return in_threads(lambda path: image_or_reason(path, image_shape, pixel_range), paths)


def in_threads(function: Callable[[Path], T], paths: Iterable[Path]) -> Generator[T, None, None]:
    """The results of a function that reads an image file, in order; threads read a few files in advance."""
    Image.init()  # not in the threads, which would race to import Pillow's plugins
    workers = min(os.cpu_count() or 1, 16)
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:  # Pillow releases Python's lock while it decodes and scales
        try:
            for path in paths:
                pending.append(pool.submit(function, path))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_image(path: Path, image_shape: tuple[int, ...], pixel_range: PixelRange = None) -> tuple[Image8, list[str]]:
    """One image file, converted as the images of a folder are.

    Args:
        path: a PNG, JPEG, BMP, GIF, WebP or TIFF file.
        image_shape: (C, H, W) of the result; C = 1 is grey, C = 3 is colour.
        pixel_range: see :func:`image_or_reason`.

    Returns:
        The image, (C, H, W), and a description of each conversion.

    Raises:
        UserError: the file cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata in images that it can read
        result = image_or_reason(path, image_shape, pixel_range)
        if isinstance(result, str):
            raise UserError(f"the image {path} cannot be read ({result})")
        return result, _conversions(path, image_shape, pixel_range)


def _conversions(path: Path, image_shape: tuple[int, ...], pixel_range: PixelRange) -> list[str]:
    """A description of each conversion that :func:`_image` applies to a readable file."""
    channels, height, width = image_shape
    done = []
    with Image.open(path, formats=FORMATS) as image:
        if getattr(image, "n_frames", 1) > 1:
            done.append(f"the first of {getattr(image, 'n_frames', 1)} frames")
        if image.mode.startswith(DEEP) and pixel_range is not None:
            done.append(f"black is {pixel_range[0]:.9g} and white is {pixel_range[1]:.9g}")
        turned = ImageOps.exif_transpose(image)
        if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            done.append("turned as its EXIF orientation says")
        if image.has_transparency_data:
            done.append("laid on white")
        if channels == 1 and Image.getmodebase(image.mode) != "L":
            done.append("made grey")
    factor = min(turned.width / width, turned.height / height)
    kept = round(width * factor), round(height * factor)
    if kept != turned.size:
        done.append(f"cropped from {turned.width} x {turned.height} to {kept[0]} x {kept[1]}")
    if kept != (width, height):
        done.append(f"scaled from {kept[0]} x {kept[1]} to {width} x {height}")
    return done


def image_or_reason(path: Path, image_shape: tuple[int, ...], pixel_range: PixelRange = None) -> Image8 | str:
    """An image (C, H, W), or the reason why its file cannot be read.

    Args:
        path: of the file.
        image_shape: (C, H, W).
        pixel_range: the values that become black and white in grey images of more than 8 bits; values outside are
            clipped. ``None`` takes 0 and 65535 for integers, and refuses floats.
    """
    try:
        return _image(path, image_shape, pixel_range)
    except UnidentifiedImageError:
        with suppress(OSError), path.open("rb") as file:
            head = file.read(12)
            if head[:4] in _TIFF:
                return "it is a TIFF file of a kind that Pillow does not know, such as coloured floats"
            return f"it is not a {'/'.join(FORMATS)} file; it begins with {head!r}" if head else "it is empty"
        return "it no longer exists"
    except Exception as error:  # Pillow's plugins raise errors of many types
        return f"{type(error).__name__}: {first_line(error)}"


def _image(path: Path, image_shape: tuple[int, ...], pixel_range: PixelRange) -> Image8:
    """An image file as an array (C, H, W)."""
    channels, height, width = image_shape
    with Image.open(path, formats=FORMATS) as opened:
        image = _eight_bit(ImageOps.exif_transpose(opened), "L" if channels == 1 else "RGB", pixel_range)
    # Bicubic with antialiasing, as Parmar et al. (2022, arXiv 2104.11222) recommend for metrics that compare images.
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)


def _eight_bit(image: Image.Image, mode: Literal["L", "RGB"], pixel_range: PixelRange) -> Image.Image:
    """An image of any mode as 8-bit grey or RGB; transparent pixels are laid on white."""
    if image.mode.startswith(DEEP):  # Pillow would clip these values instead of scaling them
        values = np.asarray(image)
        if pixel_range is None:
            if image.mode == "F":
                raise ValueError("its pixels are floating-point numbers of unknown range")
            if values.min() < 0 or values.max() > 65_535:
                raise ValueError("its pixels are integers of more than 16 bits")
        elif not np.isfinite(values).all():
            raise ValueError("its pixels are not all finite numbers")
        black, white = pixel_range or (0, 65_535)
        scaled = 255 * (values.astype(np.float64) - black) / (white - black)
        image = Image.fromarray(np.rint(scaled.clip(0, 255)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
