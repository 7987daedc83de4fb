"""A folder of pictures of any size and format, decoded once into an array that need not fit into memory."""

import errno
import hashlib
import json
import logging
import os
import re
import time
import unicodedata
import uuid
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vaelab.data.source import Images
from vaelab.errors import UserError

log = logging.getLogger(__name__)

# Part of the cache files' names: raise it with every change to the images or their order.
_VERSION = 1
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")  # Pillow knows more, some of which start other programs
_EXIF_ORIENTATION = 0x0112
_PATIENCE_SECONDS = 1.5  # without a progress bar


class _File(NamedTuple):
    name: str  # relative to the folder, with forward slashes
    size: int  # bytes
    mtime_ns: int


class _Cache(NamedTuple):
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

    def __init__(
        self,
        folder: str | Path | None,
        image_shape: Sequence[int],
        cache_dir: str | Path,
        test_fraction: float = 0.1,
        seed: int = 0,
        on_error: Literal["fail", "skip"] = "fail",
    ) -> None:
        self.image_shape = tuple(image_shape)
        is_shape = all(isinstance(size, int) and size > 0 for size in self.image_shape)
        if not is_shape or len(self.image_shape) != 3 or self.image_shape[0] not in (1, 3):
            raise UserError(
                f"data.image_shape={list(self.image_shape)} is not one a folder of images can have, which are grey or "
                "coloured: type e.g. data.image_shape=[1,64,64] or data.image_shape=[3,64,64]"
            )
        if not 0 < test_fraction < 1:
            raise UserError(
                f"data.source.test_fraction must lie between 0 and 1, not be {test_fraction}: type e.g. "
                "data.source.test_fraction=0.1"
            )
        if on_error not in ("fail", "skip"):
            raise UserError(f"data.source.on_error={on_error}: no such way; choose from fail, skip")
        self._folder = None if folder is None else Path(str(folder)).expanduser().absolute()
        self.name = self._folder.name if self._folder is not None else "image_folder"
        self.classes: tuple[str, ...] = ()  # known once the folder has been read
        self.cache_dir = Path(cache_dir).expanduser().absolute()
        self.test_fraction, self.seed, self.on_error = test_fraction, seed, on_error
        self._cache: _Cache | None = None

    def prepare(self) -> None:
        """Decodes the pictures, if the cache does not have them as they are now."""
        self._open()

    def load(self, train: bool) -> Images:
        """The training or the test pictures, still on disk: the operating system reads what is used of them.

        Returns:
            Images that must not be written to: the memory they lie in is read-only.
        """
        cache = self._open()
        rows = self._rows(cache, train)
        try:
            # Not copy-on-write, which Linux refuses for files larger than the memory.
            images = np.load(cache.array, mmap_mode="r")[rows]
        except (OSError, ValueError) as error:
            raise UserError(
                f"the decoded images in {cache.array} cannot be read ({_first_line(error)}): start again to have them "
                "made anew"
            ) from error
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return Images(torch.from_numpy(images), self._labels(cache)[rows])

    def _rows(self, cache: _Cache, train: bool) -> slice:
        count = len(cache.names)
        if cache.is_split:
            tests = sum(name.startswith("test/") for name in cache.names)
            how = "in its folders train and test"
        else:
            tests = sum(_position(name, self.seed) < self.test_fraction for name in cache.names)
            tests = min(max(tests, 1), count - 1)
            how = f"at data.source.test_fraction={self.test_fraction}"
        if not 0 < tests < count:
            raise UserError(
                f"{self._folder} has {count - tests} images to train with and {tests} to test with ({how}), but needs "
                "at least one of both: add images, or type data.source.folder=<path of another folder>"
            )
        return slice(tests, None) if train else slice(tests)

    def _labels(self, cache: _Cache) -> torch.Tensor:
        paths = [name.split("/")[1 if cache.is_split else 0 :] for name in cache.names]
        classes = [path[0] if len(path) > 1 else self.name for path in paths]
        self.classes = tuple(sorted(set(classes)))
        numbers = {name: number for number, name in enumerate(self.classes)}
        return torch.tensor([numbers[name] for name in classes])

    def _open(self) -> _Cache:
        """The cache as the folder is now."""
        if self._cache is None:
            files, is_split = self._files()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, about odd metadata of pictures that it reads nevertheless
                array, unreadable = self._cached(files) or self._decode(files)
            if unreadable:
                name, reason = next(iter(unreadable.items()))
                if self.on_error == "fail":
                    raise self._refusal(name, reason)
                log.warning(
                    "left out %d of the %d images in %s, which cannot be read; the first one is %s (%s)",
                    len(unreadable),
                    len(files),
                    self._folder,
                    name,
                    reason,
                )
            cache = _Cache(array, [file.name for file in files if file.name not in unreadable], is_split)
            self._rows(cache, train=True)  # refuses too few of them
            self._labels(cache)
            self._cache = cache
        return self._cache

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / name

    def _refusal(self, name: str, reason: str) -> UserError:
        return UserError(
            f"the image {name} in {self._folder} cannot be read ({reason}): replace it, or type "
            "data.source.on_error=skip to leave out all that cannot be read"
        )

    def _files(self) -> tuple[list[_File], bool]:
        """The pictures in the order of the array, by hash and test images first; whether there are two folders."""
        folder = self._folder
        if folder is None:
            raise UserError("data=image_folder needs a folder of images: type data.source.folder=<its path>")
        try:
            if not folder.is_dir():
                what = "is a file" if folder.exists() else "does not exist"
                raise UserError(f"the folder of images {folder} {what}: type data.source.folder=<path of a folder>")
            files, others = _scan(folder)
            is_split = (folder / "train").is_dir() and (folder / "test").is_dir()
        except OSError as error:
            raise UserError(
                f"{error.filename or folder} cannot be read ({error.strerror or error}): allow it, or type "
                "data.source.folder=<path of another folder>"
            ) from error
        if not files:
            raise UserError(
                f"{folder} holds no images, and {others} other files (looked for {', '.join(_SUFFIXES)}, also in "
                "subfolders): type data.source.folder=<path of a folder of images>"
            )
        if is_split:
            count, files = len(files), [file for file in files if file.name.startswith(("train/", "test/"))]
            if len(files) < count:
                log.warning("left out %d images in %s outside its folders train and test", count - len(files), folder)
        return sorted(files, key=lambda file: _order(file.name, self.seed, is_split)), is_split

    @property
    def _prefix(self) -> str:
        """What the names of the cache's files begin with, and no other folder's or shape's."""
        shape = "x".join(map(str, self.image_shape))
        digest = _sha256(_VERSION, str(self._folder), shape, self.seed)[:8]
        return f"{re.sub(r'[^A-Za-z0-9_-]', '_', self.name)[:40]}-{shape}-{digest}"

    @property
    def _manifest(self) -> Path:
        return self.cache_dir / f"{self._prefix}.json"

    def _cached(self, files: list[_File]) -> tuple[Path, dict[str, str]] | None:
        """The array that the manifest tells of and the unreadable images, where they are of these files."""
        try:
            text = self._manifest.read_text(encoding="utf-8")
        except OSError:
            return None
        # A file that someone else may have written can fail in any way; none of them is worth more than decoding anew.
        try:
            manifest = json.loads(text)
            if [_File(*file) for file in manifest["files"]] != files:
                log.info("the images in %s have changed since they were decoded", self._folder)
                return None
            unreadable = dict(manifest["unreadable"])
            array = self.cache_dir / Path(manifest["array"]).name
            images = np.load(array, mmap_mode="r")
            if images.dtype != np.uint8 or images.shape != (len(files) - len(unreadable), *self.image_shape):
                raise ValueError(f"{array.name} holds {images.dtype} of shape {images.shape}")
            # A permission or a newer Pillow makes an image readable that has not changed.
            if any(not isinstance(_image_or_reason(self._path(name), self.image_shape), str) for name in unreadable):
                return None
        except Exception as error:
            log.warning("replacing the decoded images in %s: %s", self._manifest, _first_line(error))
            return None
        return array, unreadable

    def _decode(self, files: list[_File]) -> tuple[Path, dict[str, str]]:
        """Decodes all files into the cache: the array and the unreadable images, each with what was found.

        The manifest is written last and names an array that is named after its content: a process that reads at any
        time, or builds the same at the same time, finds both or neither.
        """
        log.info("decoding the %d images in %s, once, into %s", len(files), self._folder, self.cache_dir)
        temporary = self.cache_dir / f".{self._prefix}.{uuid.uuid4().hex}.tmp"
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                unreadable = self._write(file, files)
            array = self.cache_dir / f"{self._prefix}-{_sha256(files, sorted(unreadable.items()))[:12]}.npy"
            os.replace(temporary, array)
            content = {
                "version": _VERSION,
                "folder": str(self._folder),
                "image_shape": self.image_shape,
                "seed": self.seed,
                "array": array.name,
                "unreadable": unreadable,
                "files": files,
            }
            temporary.write_text(json.dumps(content), encoding="utf-8")
            os.replace(temporary, self._manifest)
        except OSError as error:
            size = len(files) * int(np.prod(self.image_shape)) / 1e6
            raise UserError(
                f"the decoded images cannot be kept in {self.cache_dir}, which takes {size:,.0f} MB "
                f"({os.strerror(error.errno) if error.errno else error}): "
                f"{'make room' if error.errno == errno.ENOSPC else 'allow it'}, or type data.source.cache_dir=<path of "
                "another folder>"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        for outdated in self.cache_dir.glob(f"{self._prefix}-*.npy"):
            if outdated != array:
                with suppress(OSError):  # in use, where that matters
                    outdated.unlink()
        return array, unreadable

    def _write(self, target: BinaryIO, files: list[_File]) -> dict[str, str]:
        """Writes the array to a file and returns the names of the unreadable images, each with what was found.

        Not through a mapping of the file, which on a full disk ends the process rather than in an error.
        """
        unreadable = dict[str, str]()
        _write_header(target, (len(files), *self.image_shape))
        end_of_header = target.tell()
        bar = Progress(
            TextColumn("decoding images"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=get_console(),
            transient=True,
        )
        task, began = bar.add_task("", total=len(files)), time.monotonic()
        Image.init()  # here, for threads would race to import Pillow's plugins
        with ExitStack() as stack:
            paths = (self._path(file.name) for file in files)
            results = stack.enter_context(closing(_decoded(paths, self.image_shape)))
            for file, result in zip(files, results, strict=True):
                if isinstance(result, str):
                    if self.on_error == "fail":
                        raise self._refusal(file.name, result)
                    unreadable[file.name] = result
                else:
                    target.write(result.tobytes())
                bar.advance(task)
                slow = time.monotonic() - began > _PATIENCE_SECONDS
                if slow and not bar.live.is_started and get_console().is_terminal:
                    stack.enter_context(bar)
        if len(unreadable) == len(files):
            name, reason = next(iter(unreadable.items()))
            raise UserError(
                f"none of the {len(files)} images in {self._folder} can be read; the first one is {name} ({reason}): "
                "type data.source.folder=<path of another folder>"
            )
        target.seek(0)
        _write_header(target, (len(files) - len(unreadable), *self.image_shape))
        assert target.tell() == end_of_header
        return unreadable


def _scan(folder: Path) -> tuple[list[_File], int]:
    """The image files below a folder, and how many other files there are; what is hidden is left out."""

    def refuse(error: OSError) -> None:
        raise error

    files, others, visited = list[_File](), 0, {os.path.realpath(folder)}
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
            if path.suffix.lower() not in _SUFFIXES:
                others += 1
                continue
            try:
                status = path.stat()
                size, mtime_ns = status.st_size, status.st_mtime_ns
            except FileNotFoundError:  # a link to nowhere, which is told with the other unreadable images
                size, mtime_ns = 0, 0
            files.append(_File(path.relative_to(folder).as_posix(), size, mtime_ns))
    return files, others


def _sha256(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()


def _position(name: str, seed: int) -> float:
    """A number in [0, 1) that looks random, the same on every machine."""
    # File systems differ in how they write accents.
    text = unicodedata.normalize("NFC", name).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(f"{seed}:".encode() + text).digest()[:6], "big") / 2**48


def _order(name: str, seed: int, is_split: bool) -> tuple[bool, float, str]:
    return is_split and name.startswith("train/"), _position(name, seed), name


def _write_header(target: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(target, header)


def _decoded(paths: Iterable[Path], image_shape: tuple[int, ...]) -> Generator[npt.NDArray[np.uint8] | str, None, None]:
    """Each image or why there is none, in order, a few ahead of where it is used."""
    workers = min(os.cpu_count() or 1, 16)
    pending: deque[Future[npt.NDArray[np.uint8] | str]] = deque()
    with ThreadPoolExecutor(workers) as pool:  # Pillow decodes and scales outside Python's lock
        try:
            for path in paths:
                pending.append(pool.submit(_image_or_reason, path, image_shape))
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
        result = _image_or_reason(path, image_shape)
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


def _image_or_reason(path: Path, image_shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | str:
    try:
        return _image(path, image_shape)
    except UnidentifiedImageError:
        with suppress(OSError), path.open("rb") as file:
            head = file.read(12)
            return f"it is no {'/'.join(_FORMATS)}, but begins with {head!r}" if head else "it is empty"
        return "it is gone"
    except Exception as error:  # Pillow's plugins raise whatever their parsing stumbles over
        return f"{type(error).__name__}: {_first_line(error)}"


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no details"])[0]
