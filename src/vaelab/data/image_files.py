"""Picture files of any size and format, as images of one shape."""

import os
import warnings
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from vaelab.runtime.errors import UserError, first_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")  # Pillow knows more, some of which start other programs
_EXIF_ORIENTATION = 0x0112


def read_all(paths: Iterable[Path], image_shape: tuple[int, ...]) -> Generator[npt.NDArray[np.uint8] | str, None, None]:
    """Each image or why there is none, in order, a few ahead of where it is used."""
    Image.init()  # here, for threads would race to import Pillow's plugins
    workers = min(os.cpu_count() or 1, 16)
    pending: deque[Future[npt.NDArray[np.uint8] | str]] = deque()
    with ThreadPoolExecutor(workers) as pool:  # Pillow decodes and scales outside Python's lock
        try:
            for path in paths:
                pending.append(pool.submit(image_or_reason, path, image_shape))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_image(path: Path, image_shape: tuple[int, ...]) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """One picture file, converted as those of a folder are.

    Args:
        path: of a PNG, JPEG, BMP, GIF, WebP or TIFF file.
        image_shape: (C, H, W) of the result; C = 1 makes it grey, C = 3 coloured.

    Returns:
        The image, (C, H, W), and what was done to it, in words.

    Raises:
        UserError: it cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about odd metadata of pictures that it reads nevertheless
        result = image_or_reason(path, image_shape)
        if isinstance(result, str):
            raise UserError(f"the image {path} cannot be read ({result})")
        return result, _what_is_done(path, image_shape)


def _what_is_done(path: Path, image_shape: tuple[int, ...]) -> list[str]:
    """What :func:`_image` does to a file that it can read."""
    channels, height, width = image_shape
    done = []
    with Image.open(path, formats=_FORMATS) as picture:
        if getattr(picture, "n_frames", 1) > 1:
            done.append(f"the first of {getattr(picture, 'n_frames', 1)} frames")
        turned = ImageOps.exif_transpose(picture)
        if picture.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            done.append("turned as its EXIF orientation says")
        if picture.has_transparency_data:
            done.append("laid on white")
        if channels == 1 and Image.getmodebase(picture.mode) != "L":
            done.append("made grey")
    factor = min(turned.width / width, turned.height / height)
    kept = round(width * factor), round(height * factor)
    if kept != turned.size:
        done.append(f"cropped from {turned.width} x {turned.height} to {kept[0]} x {kept[1]}")
    if kept != (width, height):
        done.append(f"scaled from {kept[0]} x {kept[1]} to {width} x {height}")
    return done


def image_or_reason(path: Path, image_shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | str:
    """A picture as (C, H, W), or why there is none."""
    try:
        return _image(path, image_shape)
    except UnidentifiedImageError:
        with suppress(OSError), path.open("rb") as file:
            head = file.read(12)
            return f"it is no {'/'.join(_FORMATS)}, but begins with {head!r}" if head else "it is empty"
        return "it is gone"
    except Exception as error:  # Pillow's plugins raise whatever their parsing stumbles over
        return f"{type(error).__name__}: {first_line(error)}"


def _image(path: Path, image_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """A picture as (C, H, W)."""
    channels, height, width = image_shape
    with Image.open(path, formats=_FORMATS) as opened:
        picture = _eight_bit(ImageOps.exif_transpose(opened), "L" if channels == 1 else "RGB")
    # Bicubic with antialiasing, as Parmar et al. (2022, arXiv 2104.11222) recommend for images that are compared.
    fitted = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)


def _eight_bit(picture: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """A picture of any mode as grey or coloured bytes, without transparency."""
    if picture.mode.startswith("I"):  # Pillow would clip where it should scale
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65_535:
            raise ValueError("its pixels are integers of more than 16 bits")
        picture = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    elif picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(mode)
