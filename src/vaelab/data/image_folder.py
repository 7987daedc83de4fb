"""A folder of images of any size and format, decoded once into an array that need not fit into memory."""

import hashlib
import logging
import os
import unicodedata
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from vaelab.data.image_cache import File, ImageCache
from vaelab.data.image_files import SUFFIXES
from vaelab.data.source import Images
from vaelab.runtime.console import displayable
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.validation import Fraction, ImageShape, checked

log = logging.getLogger(__name__)


class _Found(NamedTuple):
    """The images that the folder holds now."""

    array: Path  # uint8 (N, C, H, W), test images first
    names: list[str]  # N, in the order of the array
    is_split: bool  # whether the folder holds train/ and test/


class ImageFolder:
    """The images in a folder and its subfolders, scaled and centre-cropped to one shape.

    The first-level subfolders are the classes; without subfolders there is one class. If the folder holds ``train`` and
    ``test``, these are the splits, and their subfolders are the classes. Otherwise an image is a test image if a hash
    of ``seed`` and its name is below ``test_fraction``: new images never move others to another split. The same hash
    orders the images. A data module takes the last ones for validation, which therefore come from all classes.

    Images are rotated by their EXIF orientation, scaled with antialiasing until the shorter side fits, and cropped.
    Transparent images get a white background, as in most viewers. Colour profiles are not applied. Animations count
    with their first frame. The result is kept in ``cache_dir``, as a NumPy array that is memory-mapped. It is made
    again when an image is added, changed or removed.

    Args:
        folder: a folder of PNG, JPEG, BMP, GIF, WebP and TIFF files. ``prepare`` raises an error for ``None``.
        image_shape: (C, H, W) of the result; C = 1 is grey, C = 3 is colour.
        cache_dir: the folder of the result, which takes N * C * H * W bytes.
        test_fraction: the approximate fraction of test images; there is at least one.
        seed: the seed of the split and the order.
        on_error: ``fail`` at the first unreadable image, or ``skip`` all unreadable images with a warning.

    Raises:
        UserError: a value is impossible, a folder or an image cannot be read, or there are too few images.
    """

    @checked
    def __init__(
        self,
        folder: str | Path | None,
        image_shape: ImageShape,
        cache_dir: str | Path,
        test_fraction: Fraction = 0.1,
        seed: int = 0,
        on_error: Literal["fail", "skip"] = "fail",
    ) -> None:
        self.image_shape = tuple(image_shape)
        if self.image_shape[0] not in (1, 3):
            raise UserError(
                f"data.image_shape={list(self.image_shape)} is not a shape of grey or coloured images: "
                "type e.g. data.image_shape=[1,64,64] or data.image_shape=[3,64,64]"
            )
        self._folder = None if folder is None else Path(str(folder)).expanduser().absolute()
        self.name = displayable(self._folder.name) if self._folder is not None else "image_folder"
        self.classes: tuple[str, ...] = ()  # known after the folder has been read
        self.cache_dir = Path(cache_dir).expanduser().absolute()
        self.test_fraction, self.seed, self.on_error = test_fraction, seed, on_error
        self._found: _Found | None = None

    def prepare(self) -> None:
        """Decodes the images, unless the cache is up to date."""
        self._open()

    def load(self, train: bool) -> Images:
        """The training or the test images, memory-mapped: the operating system reads them when they are used.

        Returns:
            Images in read-only memory.
        """
        found = self._open()
        rows = self._rows(found, train)
        try:
            # Read-only, because Linux refuses to map a file larger than the memory as copy-on-write.
            images = np.load(found.array, mmap_mode="r")[rows]
        except (OSError, ValueError) as error:
            raise UserError(
                f"the decoded images in {found.array} cannot be read ({first_line(error)}): start again to decode "
                "them again"
            ) from error
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return Images(torch.from_numpy(images), self._labels(found)[rows])

    def _rows(self, found: _Found, train: bool) -> slice:
        count = len(found.names)
        if found.is_split:
            tests = sum(name.startswith("test/") for name in found.names)
            how = "in its folders train and test"
        else:
            tests = sum(_position(name, self.seed) < self.test_fraction for name in found.names)
            tests = min(max(tests, 1), count - 1)
            how = f"at data.source.test_fraction={self.test_fraction}"
        if not 0 < tests < count:
            raise UserError(
                f"{self._folder} has {count - tests} images to train with and {tests} to test with ({how}), but needs "
                "at least one of both: add images, or type data.source.folder=<path of another folder>"
            )
        return slice(tests, None) if train else slice(tests)

    def _labels(self, found: _Found) -> torch.Tensor:
        paths = [name.split("/")[1 if found.is_split else 0 :] for name in found.names]
        classes = [path[0] if len(path) > 1 else self._folder.name for path in paths]
        names = sorted(set(classes))
        self.classes = tuple(map(displayable, names))
        numbers = {name: number for number, name in enumerate(names)}
        return torch.tensor([numbers[name] for name in classes])

    def _open(self) -> _Found:
        """The images that the folder holds now, decoded if necessary."""
        if self._found is None:
            files, is_split = self._files()
            assert self._folder is not None
            cache = ImageCache(self._folder, self.image_shape, self.cache_dir, self.seed, self.on_error)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of odd metadata in images that it can read
                array, unreadable = cache.open(files)
            if unreadable:
                name, reason = next(iter(unreadable.items()))
                if self.on_error == "fail":
                    raise cache.refusal(name, reason)
                log.warning(
                    "left out %d of the %d images in %s, which cannot be read; the first one is %s (%s)",
                    len(unreadable),
                    len(files),
                    self._folder,
                    name,
                    reason,
                )
            found = _Found(array, [file.name for file in files if file.name not in unreadable], is_split)
            self._rows(found, train=True)  # raises an error if there are too few images
            self._labels(found)
            self._found = found
        return self._found

    def _files(self) -> tuple[list[File], bool]:
        """The image files in the order of the array, and whether the folder holds ``train`` and ``test``."""
        folder = self._folder
        if folder is None:
            raise UserError("data=image_folder needs a folder of images: type data.source.folder=<its path>")
        try:
            if not folder.is_dir():
                what = "is a file" if folder.exists() else "does not exist"
                raise UserError(
                    f"the folder of images {folder} {what}: type data.source.folder=<path of a folder>; for a "
                    "trained model, data_dir=<path>"
                )
            files, others = _scan(folder)
            is_split = (folder / "train").is_dir() and (folder / "test").is_dir()
        except OSError as error:
            raise UserError(
                f"{error.filename or folder} cannot be read ({error.strerror or error}): allow it, or type "
                "data.source.folder=<path of another folder>"
            ) from error
        if not files:
            raise UserError(
                f"{folder} holds no images, and {others} other files (looked for {', '.join(SUFFIXES)}, also in "
                "subfolders): type data.source.folder=<path of a folder of images>"
            )
        if is_split:
            count, files = len(files), [file for file in files if file.name.startswith(("train/", "test/"))]
            if len(files) < count:
                log.warning("left out %d images in %s outside its folders train and test", count - len(files), folder)
        return sorted(files, key=lambda file: _order(file.name, self.seed, is_split)), is_split


def _scan(folder: Path) -> tuple[list[File], int]:
    """The image files in a folder and its subfolders, and the number of other files; hidden ones are ignored."""

    def refuse(error: OSError) -> None:
        raise error

    files, others, visited = list[File](), 0, {os.path.realpath(folder)}
    for parent, subfolders, names in os.walk(folder, onerror=refuse, followlinks=True):
        entered = list[str]()
        for name in sorted(subfolders):
            real = os.path.realpath(os.path.join(parent, name))
            if not name.startswith((".", "__MACOSX")) and real not in visited:  # links can form cycles
                visited.add(real)
                entered.append(name)
        subfolders[:] = entered
        for name in names:
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES:
                others += 1
                continue
            try:
                status = path.stat()
                size, mtime_ns = status.st_size, status.st_mtime_ns
            except FileNotFoundError:  # a broken link, which is reported with the other unreadable images
                size, mtime_ns = 0, 0
            files.append(File(path.relative_to(folder).as_posix(), size, mtime_ns))
    return files, others


def _position(name: str, seed: int) -> float:
    """A hash of a name as a number in [0, 1), the same on every machine."""
    # File systems differ in the Unicode form of accents.
    text = unicodedata.normalize("NFC", name).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(f"{seed}:".encode() + text).digest()[:6], "big") / 2**48


def _order(name: str, seed: int, is_split: bool) -> tuple[bool, float, str]:
    """The sort key of an image, by its hash; it puts all test images before the training images."""
    return is_split and name.startswith("train/"), _position(name, seed), name
