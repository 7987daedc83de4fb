"""A folder of pictures of any size and format, decoded once into an array that need not fit into memory."""

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
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.validation import Fraction, ImageShape, checked

log = logging.getLogger(__name__)


class _Found(NamedTuple):
    array: Path  # uint8 (N, C, H, W), test images first
    names: list[str]  # N, in the order of the array
    is_split: bool  # into train/ and test/


class ImageFolder:
    """The pictures in a folder and its subfolders, scaled and centre-cropped to one shape.

    The first-level subfolders are the classes; without any, all is one class. Where the folder holds ``train`` and
    ``test``, these are the splits, and classes are their subfolders. Otherwise a picture is for testing where a hash of
    ``seed`` and its name falls below ``test_fraction``, so that none changes sides when others are added. The same
    hash orders the pictures, that those a data module cuts off for validation are of all classes.

    Pictures are turned as their EXIF orientation says, scaled with antialiasing until the shorter side fits, and
    cropped. Transparent ones lie on white, the paper that viewers and printers show them on. Colour profiles are not
    applied; of animations the first frame counts. The result is kept in ``cache_dir``, as a NumPy array that is
    mapped rather than read, and made anew when a picture changes, comes or goes.

    Args:
        folder: PNG, JPEG, BMP, GIF, WebP and TIFF files are looked for there. ``None`` is refused by ``prepare``.
        image_shape: (C, H, W) of the result; C = 1 makes it grey, C = 3 coloured.
        cache_dir: the folder to keep the result in: N * C * H * W bytes.
        test_fraction: about this share of the pictures is for testing, but at least one.
        seed: of the split and the order.
        on_error: ``fail`` at the first picture that cannot be read, or ``skip`` all of them with a warning.

    Raises:
        UserError: a value is impossible, a folder or picture cannot be read, or there are too few of them.
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
                f"data.image_shape={list(self.image_shape)} is not one a folder of images can have, which are grey or "
                "coloured: type e.g. data.image_shape=[1,64,64] or data.image_shape=[3,64,64]"
            )
        self._folder = None if folder is None else Path(str(folder)).expanduser().absolute()
        self.name = self._folder.name if self._folder is not None else "image_folder"
        self.classes: tuple[str, ...] = ()  # known once the folder has been read
        self.cache_dir = Path(cache_dir).expanduser().absolute()
        self.test_fraction, self.seed, self.on_error = test_fraction, seed, on_error
        self._found: _Found | None = None

    def prepare(self) -> None:
        """Decodes the pictures, if the cache does not have them as they are now."""
        self._open()

    def load(self, train: bool) -> Images:
        """The training or the test pictures, still on disk: the operating system reads what is used of them.

        Returns:
            Images that must not be written to: the memory they lie in is read-only.
        """
        found = self._open()
        rows = self._rows(found, train)
        try:
            # Not copy-on-write, which Linux refuses for files larger than the memory.
            images = np.load(found.array, mmap_mode="r")[rows]
        except (OSError, ValueError) as error:
            raise UserError(
                f"the decoded images in {found.array} cannot be read ({first_line(error)}): start again to have them "
                "made anew"
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
        classes = [path[0] if len(path) > 1 else self.name for path in paths]
        self.classes = tuple(sorted(set(classes)))
        numbers = {name: number for number, name in enumerate(self.classes)}
        return torch.tensor([numbers[name] for name in classes])

    def _open(self) -> _Found:
        """What the folder holds now."""
        if self._found is None:
            files, is_split = self._files()
            assert self._folder is not None
            cache = ImageCache(self._folder, self.image_shape, self.cache_dir, self.seed, self.on_error)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, about odd metadata of pictures that it reads nevertheless
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
            self._rows(found, train=True)  # refuses too few of them
            self._labels(found)
            self._found = found
        return self._found

    def _files(self) -> tuple[list[File], bool]:
        """The pictures in the order of the array, by hash and test images first; whether there are two folders."""
        folder = self._folder
        if folder is None:
            raise UserError("data=image_folder needs a folder of images: type data.source.folder=<its path>")
        try:
            if not folder.is_dir():
                what = "is a file" if folder.exists() else "does not exist"
                raise UserError(
                    f"the folder of images {folder} {what}: type data.source.folder=<path of a folder>; for a model "
                    "that has been trained, data_dir=<path>"
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
    """The image files below a folder, and how many other files there are; what is hidden is left out."""

    def refuse(error: OSError) -> None:
        raise error

    files, others, visited = list[File](), 0, {os.path.realpath(folder)}
    for parent, subfolders, names in os.walk(folder, onerror=refuse, followlinks=True):
        entered = list[str]()
        for name in sorted(subfolders):
            real = os.path.realpath(os.path.join(parent, name))
            if not name.startswith((".", "__MACOSX")) and real not in visited:  # links can make circles
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
            except FileNotFoundError:  # a link to nowhere, which is told with the other unreadable images
                size, mtime_ns = 0, 0
            files.append(File(path.relative_to(folder).as_posix(), size, mtime_ns))
    return files, others


def _position(name: str, seed: int) -> float:
    """A number in [0, 1) that looks random, the same on every machine."""
    # File systems differ in how they write accents.
    text = unicodedata.normalize("NFC", name).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(f"{seed}:".encode() + text).digest()[:6], "big") / 2**48


def _order(name: str, seed: int, is_split: bool) -> tuple[bool, float, str]:
    return is_split and name.startswith("train/"), _position(name, seed), name
