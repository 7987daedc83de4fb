"""Decoded images in one array on disk, which need not fit into memory. Interrupted decoding is resumed."""

import errno
import hashlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vaelab.data.image_files import Image8, PixelRange, image_or_reason, read_all
from vaelab.data.image_survey import Survey, survey
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.files import write_text

try:
    import fcntl
except ImportError:  # Windows has no fcntl: there, interrupted decoding starts again
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

# Part of the files' names: increase it with every change to the images or their order.
_VERSION = 1
_PATIENCE_SECONDS = 1.5  # before a progress bar is shown
_NOTE_SECONDS = 5.0  # between writes of the journal: an interruption loses at most so much work


class File(NamedTuple):
    """An image file, with the size and time that show whether it has changed."""

    name: str  # relative to the folder, with forward slashes
    size: int  # bytes
    mtime_ns: int


class ImageCache:
    """The images of a folder as one array, uint8 (N, C, H, W), in the order of the given files.

    Args:
        folder: the folder of images.
        image_shape: (C, H, W).
        cache_dir: the folder of the array, which takes N * C * H * W bytes.
        seed: the seed of the order; it is part of the array's name.
        on_error: ``fail`` at the first unreadable image, or ``skip`` all unreadable images.
        pixel_range: see :func:`vaelab.data.image_files.image_or_reason`; it is part of the array's name.
    """

    def __init__(
        self,
        folder: Path,
        image_shape: tuple[int, ...],
        cache_dir: Path,
        seed: int = 0,
        on_error: Literal["fail", "skip"] = "fail",
        pixel_range: PixelRange = None,
    ) -> None:
        self.folder, self.image_shape, self.cache_dir, self.seed = folder, image_shape, cache_dir, seed
        self.on_error, self.pixel_range = on_error, pixel_range
        # The prefix of the cache's file names; it differs between folders, shapes, seeds and ranges of pixels.
        shape = "x".join(map(str, image_shape))
        digest = _sha256(_VERSION, str(folder), shape, seed, *([] if pixel_range is None else [pixel_range]))[:8]
        self._prefix = f"{re.sub(r'[^A-Za-z0-9_-]', '_', folder.name)[:40]}-{shape}-{digest}"
        self._manifest = cache_dir / f"{self._prefix}.json"
        self._image_bytes = int(np.prod(image_shape))

    @property
    def exists(self) -> bool:
        """Whether the folder holds an array of these images, which may have changed meanwhile."""
        return self._manifest.is_file()

    def open(self, files: Sequence[File]) -> tuple[Path, dict[str, str]]:
        """The array of these files, and the unreadable files, each with the reason.

        Raises:
            UserError: one image or all images cannot be read, or the disk is full or not writable.
        """
        return self._cached(files) or self._decode(files)

    def survey(self, files: Sequence[File]) -> Survey:
        """The properties of these files, from the cache if they have not changed."""
        path, key = self.cache_dir / f"{self._prefix}.survey.json", _sha256(files)
        with suppress(OSError, ValueError, KeyError, TypeError):  # there is none, or it is damaged
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["files"] == key:
                return Survey(**{**kept["survey"], "sides": tuple(kept["survey"]["sides"])})
        found = survey((self.folder / file.name for file in files), self.image_shape)
        with suppress(OSError):  # the decoding, which follows, raises an error that names the folder
            write_text(json.dumps({"files": key, "survey": found._asdict()}), path)
        return found

    def refusal(self, name: str, reason: str) -> UserError:
        """The error for an image that cannot be read."""
        return UserError(
            f"the image {name} in {self.folder} cannot be read ({reason}): replace it, or train with "
            "data.source.on_error=skip to leave out all that cannot be read"
        )

    def _cached(self, files: Sequence[File]) -> tuple[Path, dict[str, str]] | None:
        """The array and the unreadable files in the manifest; ``None`` if it does not describe these files."""
        try:
            text = self._manifest.read_text(encoding="utf-8")
        except OSError:
            return None
        # A file that another program wrote can raise any error. All of them have the same remedy: decode again.
        try:
            manifest = json.loads(text)
            if [File(*file) for file in manifest["files"]] != list(files):
                log.info("the images in %s have changed since they were decoded", self.folder)
                return None
            unreadable = dict(manifest["unreadable"])
            array = self.cache_dir / Path(manifest["array"]).name
            images = np.load(array, mmap_mode="r")
            if images.dtype != np.uint8 or images.shape != (len(files) - len(unreadable), *self.image_shape):
                raise ValueError(f"{array.name} holds {images.dtype} of shape {images.shape}")
            # A new permission or a newer Pillow can make an unchanged image readable.
            if any(not isinstance(self._decoded(name), str) for name in unreadable):
                return None
        except Exception as error:
            log.warning("replacing the decoded images in %s: %s", self._manifest, first_line(error))
            return None
        return array, unreadable

    def _decoded(self, name: str) -> Image8 | str:
        return image_or_reason(self.folder / name, self.image_shape, self.pixel_range)

    def _decode(self, files: Sequence[File]) -> tuple[Path, dict[str, str]]:
        """Decodes all files.

        The array's name depends on its content, and the manifest, which names the array, is written last. So a process
        that reads or builds the same cache at the same time finds both files or neither.
        """
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with self._work(files) as work:
                self._fill(work, files)
                array = self.cache_dir / f"{self._prefix}-{_sha256(files, sorted(work.unreadable.items()))[:12]}.npy"
                os.replace(work.path, array)
            content = {
                "version": _VERSION,
                "folder": str(self.folder),
                "image_shape": self.image_shape,
                "seed": self.seed,
                "array": array.name,
                "unreadable": work.unreadable,
                "files": files,
            }
            write_text(json.dumps(content), self._manifest)
        except OSError as error:
            size = len(files) * self._image_bytes / 1e6
            raise UserError(
                f"the decoded images cannot be kept in {self.cache_dir}, which takes {size:,.0f} MB "
                f"({os.strerror(error.errno) if error.errno else error}): "
                f"{'make room' if error.errno == errno.ENOSPC else 'allow it'}, or train with "
                "data.source.cache_dir=<path of another folder>"
            ) from error
        for outdated in self.cache_dir.glob(f"{self._prefix}-*.npy"):
            if outdated != array:
                with suppress(OSError):  # Windows does not delete a file that is in use
                    outdated.unlink()
        return array, work.unreadable

    @contextmanager
    def _work(self, files: Sequence[File]) -> Iterator["_Work"]:
        """The partly written array of these files; if decoding is interrupted, the decoded part is kept.

        One process at a time locks and resumes the file of an interrupted process. Other processes write to files of
        their own, from the beginning.
        """
        path = self.cache_dir / f".{self._prefix}-{_sha256(files)[:12]}.partial"
        file = _open_locked(path)
        resumable = file is not None
        if file is None:
            path = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
            file = path.open("x+b")
        work = _Work(path, file)
        try:
            _write_header(file, (len(files), *self.image_shape))
            if resumable:
                self._discard_others(path)
                work.resume(len(files), self._image_bytes)
            if work.done:
                log.info("resuming after %d of the %d images in %s", work.done, len(files), self.folder)
            else:
                log.info("decoding the %d images in %s, once, into %s", len(files), self.folder, self.cache_dir)
            yield work
        except OSError:  # the disk is full, so the journal keeps its last state
            raise
        except BaseException:
            if work.journal.exists():
                work.note()
            raise
        finally:
            with suppress(OSError):  # on a full disk, the last bytes cannot be written here either
                file.close()
            if not (resumable and work.path.exists() and work.journal.exists()):
                for left in (work.path, work.journal):
                    with suppress(OSError):
                        left.unlink(missing_ok=True)

    def _discard_others(self, path: Path) -> None:
        """Removes partly written arrays of files that have changed since, unless a process is writing them."""
        for other in self.cache_dir.glob(f".{self._prefix}-*.partial"):
            if other != path and (file := _open_locked(other)) is not None:
                with file:
                    for left in (other, _Work(other, file).journal):
                        left.unlink(missing_ok=True)

    def _fill(self, work: "_Work", files: Sequence[File]) -> None:
        """Decodes the remaining files.

        It writes to the file instead of a memory map, because on a full disk a memory map kills the process.
        """
        bar = Progress(
            TextColumn("decoding images"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=get_console(),
            transient=True,
        )
        task = bar.add_task("", total=len(files), completed=work.done)
        began = noted = time.monotonic()
        with ExitStack() as stack:
            left = files[work.done :]
            results = stack.enter_context(
                closing(read_all((self.folder / file.name for file in left), self.image_shape, self.pixel_range))
            )
            for file, result in zip(left, results, strict=True):
                if isinstance(result, str):
                    if self.on_error == "fail":
                        raise self.refusal(file.name, result)
                    work.unreadable[file.name] = result
                else:
                    work.file.write(result.tobytes())
                work.done += 1
                bar.advance(task)
                now = time.monotonic()
                if now - noted > _NOTE_SECONDS:
                    work.note()
                    noted = now
                if now - began > _PATIENCE_SECONDS and not bar.live.is_started and get_console().is_terminal:
                    stack.enter_context(bar)
        if len(work.unreadable) == len(files):
            name, reason = next(iter(work.unreadable.items()))
            raise UserError(
                f"none of the {len(files)} images in {self.folder} can be read; the first one is {name} ({reason}): "
                "type data.source.folder=<path of another folder>; for a trained model, data_dir=<path>"
            )
        work.file.seek(0)
        _write_header(work.file, (len(files) - len(work.unreadable), *self.image_shape))  # as long as the first header
        work.file.flush()


class _Work:
    """An array that is being written: the number of files done, and the unreadable ones among them."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.journal = path.with_name(f"{path.name}.json")
        self.done = 0
        self.unreadable: dict[str, str] = {}

    def resume(self, files: int, image_bytes: int) -> None:
        """Moves to the end of the images in the journal, after the new header, and drops the rest of the file."""
        header = self.file.tell()
        try:
            noted = json.loads(self.journal.read_text(encoding="utf-8"))
            done, unreadable = int(noted["done"]), {str(name): str(why) for name, why in noted["unreadable"].items()}
            end = header + (done - len(unreadable)) * image_bytes
            if not (len(unreadable) <= done <= files and end <= self.path.stat().st_size):
                raise ValueError("the journal lists more images than the file holds")
            self.done, self.unreadable = done, unreadable
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # there is no journal, or it is damaged
            end = header
        self.file.seek(end)
        self.file.truncate()

    def note(self) -> None:
        """Writes the journal, after the images are on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())
        write_text(json.dumps({"done": self.done, "unreadable": self.unreadable}), self.journal)


def _open_locked(path: Path) -> BinaryIO | None:
    """A file, created if necessary and locked; ``None`` if another process holds the lock or locks do not work."""
    if fcntl is None:
        return None
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # no process has renamed or removed it meanwhile
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            file.close()
            return None
        except OSError:  # this file system has no locks
            file.close()
            path.unlink(missing_ok=True)
            return None
        file.close()


def _sha256(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()


def _write_header(target: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(target, header)
