"""A folder of images of any size and format, decoded once into an array that need not fit into memory."""

import hashlib
import logging
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch

from vaelab.data.folder_layout import Splits, doubts, splits_of
from vaelab.data.image_cache import File, ImageCache
from vaelab.data.image_files import SUFFIXES, PixelRange
from vaelab.data.image_survey import range_of, remarks
from vaelab.data.source import Images
from vaelab.runtime.console import displayable
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.validation import TEXT, Fraction, ImageShape, Kind, Seed, checked, number, sequence

log = logging.getLogger(__name__)

_TWO_NUMBERS = sequence(number(), 2).accepts
_Range = Annotated[
    Sequence[float],
    Kind(
        ("a list of two numbers, that of black and the larger one of white",),
        lambda value: _TWO_NUMBERS(value) and value[0] < value[1],
        [0, 4095],
    ),
]
_TWO_NAMES = sequence(TEXT, 2).accepts
_Splits = Annotated[
    Sequence[str],
    Kind(
        ("a list of the subfolder to train on and the one to test on", "[]"),
        lambda value: (_TWO_NAMES(value) and value[0] != value[1]) or value in ([], ()),
        ["train", "test"],
    ),
]
_HIDDEN = (".", "__MACOSX", "@eaDir")  # the beginnings of the names of folders that other programs add


class _Found(NamedTuple):
    """The images that the folder holds now."""

    array: Path  # uint8 (N, C, H, W), test images first
    names: list[str]  # N, in the order of the array
    splits: Splits | None


class ImageFolder:
    """The images in a folder and its subfolders, scaled and centre-cropped to one shape.

    The first-level subfolders are the classes; without subfolders there is one class. If the folder holds the splits,
    such as ``train`` and ``test``, their subfolders are the classes. Otherwise an image is a test image if a hash
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
        splits: the subfolder to train on and the one to test on. An empty list: all subfolders are classes. ``auto``
            recognises the usual names, and raises an error if they do not tell both. ``None`` knows only ``train`` and
            ``test``: that is how checkpoints of version 0.1 read their folder.
        pixel_range: the values that become black and white in grey images of more than 8 bits. ``auto`` finds them in
            all these images together: 0 and 1, or 0 and the largest value of 8, 10, 12, 14 or 16 bits. It raises an
            error for negative, larger or very small values, which do not tell their range. ``None`` takes 0 and 65535
            and refuses floats: that is how checkpoints of version 0.1 read their images.

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
        seed: Seed = 0,
        on_error: Literal["fail", "skip"] = "fail",
        splits: _Splits | Literal["auto"] | None = None,
        pixel_range: _Range | Literal["auto"] | None = None,
    ) -> None:
        self.image_shape = tuple(image_shape)
        if self.image_shape[0] not in (1, 3):
            raise UserError(
                f"data.image_shape={list(self.image_shape)} is not a shape of grey or coloured images: "
                "type e.g. data.image_shape=[1,64,64] or data.image_shape=[3,64,64]"
            )
        self._folder = None if folder is None or not str(folder) else Path(str(folder)).expanduser().absolute()
        self.name = displayable(self._folder.name) if self._folder is not None else "image_folder"
        self.classes: tuple[str, ...] = ()  # known after the folder has been read
        self.cache_dir = Path(cache_dir).expanduser().absolute()
        self.test_fraction, self.seed, self.on_error = test_fraction, seed, on_error
        self.adopt({"splits": splits, "pixel_range": pixel_range})
        self._found: _Found | None = None

    def is_prepared(self) -> bool:
        """Whether the folder has been decoded into the cache before."""
        return self._folder is not None and self._cache(self._folder).exists

    @property
    def found(self) -> dict[str, Any]:
        """The settings that were found in the folder, for a checkpoint: new files must not change them."""
        opened = self._open()
        return {"splits": list(opened.splits or ()), "pixel_range": self.pixel_range and [*self.pixel_range]}

    def adopt(self, found: Mapping[str, Any]) -> None:
        """Reads the folder with these settings, see :attr:`found`."""
        self.splits: Sequence[str] | Literal["auto"] | None = found["splits"]
        chosen = found["pixel_range"]
        self.pixel_range: PixelRange | Literal["auto"] = chosen
        if isinstance(chosen, Sequence) and not isinstance(chosen, str):
            self.pixel_range = (float(chosen[0]), float(chosen[1]))

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
        if found.splits is not None:
            tests = sum(name.startswith(f"{found.splits.test}/") for name in found.names)
            how = f"in its folders {' and '.join(found.splits)}"
        else:
            tests = sum(_position(name, self.seed) < self.test_fraction for name in found.names)
            tests = min(max(tests, 1), count - 1)
            how = f"at data.source.test_fraction={self.test_fraction}"
        if not 0 < tests < count:
            raise UserError(
                f"{self._folder} has {count - tests} images to train with and {tests} to test with ({how}), but needs "
                "at least one of both: add images, or type data.source.folder=<path of another folder>; for a trained "
                "model, data_dir=<path>"
            )
        return slice(tests, None) if train else slice(tests)

    def _labels(self, found: _Found) -> torch.Tensor:
        assert self._folder is not None
        paths = [name.split("/")[0 if found.splits is None else 1 :] for name in found.names]
        classes = [path[0] if len(path) > 1 else self._folder.name for path in paths]
        names = sorted(set(classes))
        self.classes = tuple(map(displayable, names))
        numbers = {name: number for number, name in enumerate(names)}
        return torch.tensor([numbers[name] for name in classes])

    def _open(self) -> _Found:
        """The images that the folder holds now, decoded if necessary."""
        if self._found is None:
            files, subfolders, splits = self._files()
            assert self._folder is not None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of odd metadata in images that it can read
                if self.pixel_range == "auto":
                    surveyed = self._cache(self._folder).survey(files)
                    where, remedy = str(self._folder), "type e.g. data.source.pixel_range={range}"
                    self.pixel_range = range_of(surveyed, where, remedy)
                    for line in remarks(surveyed, self.pixel_range, self.image_shape, len(files)):
                        log.warning("%s: %s", where, line)
                array, unreadable = self._cache(self._folder).open(files)
            if unreadable:
                name, reason = next(iter(unreadable.items()))
                if self.on_error == "fail":
                    raise self._cache(self._folder).refusal(name, reason)
                log.warning(
                    "left out %d of the %d images in %s, which cannot be read; the first one is %s (%s)",
                    len(unreadable),
                    len(files),
                    self._folder,
                    name,
                    reason,
                )
            found = _Found(array, [file.name for file in files if file.name not in unreadable], splits)
            trained = self._rows(found, train=True)  # raises an error if there are too few images
            self._labels(found)
            if self.splits == "auto":
                for line in doubts(self._folder, subfolders, splits, found.names, found.names[trained]):
                    log.warning("%s: %s", self._folder, line)
            self._found = found
        return self._found

    def _cache(self, folder: Path) -> ImageCache:
        pixel_range = None if self.pixel_range == "auto" else self.pixel_range
        return ImageCache(folder, self.image_shape, self.cache_dir, self.seed, self.on_error, pixel_range)

    def _files(self) -> tuple[list[File], list[str], Splits | None]:
        """The image files in the order of the array, all subfolders, and the splits."""
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
            files, others, subfolders = _scan(folder)
        except OSError as error:
            raise UserError(
                f"{error.filename or folder} cannot be read ({error.strerror or error}): allow it, or type "
                "data.source.folder=<path of another folder>; for a trained model, data_dir=<path>"
            ) from error
        if not files:
            raise UserError(
                f"{folder} holds no images, and {others.total()} other files (looked for {', '.join(SUFFIXES)}, also "
                "in subfolders): type data.source.folder=<path of a folder of images>; for a trained model, "
                "data_dir=<path>"
            )
        if others and self.splits == "auto":
            some = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in others.most_common(5))
            log.info("%s: left out %d files that are no images by their names (%s)", folder, others.total(), some)
        splits = splits_of(folder, subfolders, self.splits)
        if splits is not None:
            count, files = len(files), [file for file in files if file.name.partition("/")[0] in splits]
            if len(files) < count:
                log.warning(
                    "left out %d images in %s outside its folders %s", count - len(files), folder, " and ".join(splits)
                )
        return sorted(files, key=lambda file: _order(file.name, self.seed, splits)), subfolders, splits


def _scan(folder: Path) -> tuple[list[File], Counter[str], list[str]]:
    """The image files in a folder and its subfolders; the number of other files by suffix; and all subfolders.

    Hidden files and folders are ignored.
    """

    def refuse(error: OSError) -> None:
        raise error

    files, others, folders, visited = list[File](), Counter[str](), list[str](), {os.path.realpath(folder)}
    for parent, subfolders, names in os.walk(folder, onerror=refuse, followlinks=True):
        entered = list[str]()
        for name in sorted(subfolders):
            real = os.path.realpath(os.path.join(parent, name))
            if not name.startswith(_HIDDEN) and real not in visited:  # links can form cycles
                visited.add(real)
                entered.append(name)
            if not name.startswith(_HIDDEN):
                folders.append(Path(parent, name).relative_to(folder).as_posix())
        subfolders[:] = entered
        for name in names:
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES:
                others[displayable(path.suffix.lower())] += 1
                continue
            try:
                status = path.stat()
                size, mtime_ns = status.st_size, status.st_mtime_ns
            except FileNotFoundError:  # a broken link, which is reported with the other unreadable images
                size, mtime_ns = 0, 0
            files.append(File(path.relative_to(folder).as_posix(), size, mtime_ns))
    return files, others, folders


def _position(name: str, seed: int) -> float:
    """A hash of a name as a number in [0, 1), the same on every machine."""
    # File systems differ in the Unicode form of accents.
    text = unicodedata.normalize("NFC", name).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(f"{seed}:".encode() + text).digest()[:6], "big") / 2**48


def _order(name: str, seed: int, splits: Splits | None) -> tuple[bool, float, str]:
    """The sort key of an image, by its hash; it puts all test images before the training images."""
    return splits is not None and name.startswith(f"{splits.train}/"), _position(name, seed), name
