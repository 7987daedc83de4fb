"""CIFAR-10 (Krizhevsky 2009), read without executing anything that its files may contain."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.datasets import CIFAR10 as TORCHVISION
from torchvision.datasets.utils import download_and_extract_archive

from vaelab.data.download import absent, downloading
from vaelab.data.source import Images, recognized
from vaelab.runtime.errors import UserError, first_line

Bytes = npt.NDArray[np.uint8]

_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST = ("test_batch",)
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_FOLDERS = _BINARY, _PICKLES = "cifar-10-batches-bin", "cifar-10-batches-py"


class CIFAR10:
    """60,000 colour 32x32 photographs in ten classes: 50,000 to train with, 10,000 to test with.

    Args:
        data_dir: where torchvision keeps data sets. The six files of the binary version are looked for in
            ``<data_dir>/cifar-10-batches-bin``, then those of the Python version in
            ``<data_dir>/cifar-10-batches-py``, to which it is downloaded.

    Raises:
        UserError: the files are neither there nor to be downloaded, or not what they should be.
    """

    name = "CIFAR10"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    # The first labels of the official files: other files are welcome, but their figures are no published benchmark's.
    official = ([6, 9, 9, 4, 1, 1, 2, 7, 8, 3], [3, 8, 8, 0, 6, 6, 1, 6, 3, 1])

    def __init__(self, data_dir: str | Path) -> None:
        self.data_dir = Path(data_dir).expanduser()

    def prepare(self) -> None:
        """Downloads the Python version, 170 MB, if neither version is there."""
        if self._folder() is not None:
            return
        with downloading(self.name, self.data_dir, _FOLDERS, self.data_dir) as temporary:
            archive = self.data_dir / TORCHVISION.filename
            download_and_extract_archive(
                TORCHVISION.url,
                str(archive.parent if archive.is_file() else temporary),
                str(temporary),
                filename=TORCHVISION.filename,
                md5=TORCHVISION.tgz_md5,
            )
            if self._folder() is None:  # another process may have been faster
                os.replace(temporary / _PICKLES, self.data_dir / _PICKLES)

    def load(self, train: bool) -> Images:
        """50,000 or 10,000 images."""
        folder = self._folder()
        if folder is None:
            raise absent(self.name, self.data_dir, _FOLDERS)
        parts = [_read(path) for path in _paths(folder, _TRAIN if train else _TEST)]
        images = torch.from_numpy(np.concatenate([images for images, _ in parts]).reshape(-1, *_SHAPE))
        labels = torch.from_numpy(np.concatenate([labels for _, labels in parts]))
        training, test = self.official
        first, count, split = (training, 50_000, "training") if train else (test, 10_000, "test")
        return recognized(images, labels, first, count, f"the {split} split of {self.name} in {folder}")

    def _folder(self) -> Path | None:
        """The folder of the version to read; None where neither is there."""
        found = [folder for name in _FOLDERS if (folder := self.data_dir / name).is_dir()]
        missing = {folder: [path.name for path in _paths(folder) if not path.is_file()] for folder in found}
        for folder in found:
            if not missing[folder]:
                return folder
        for folder, names in missing.items():
            raise UserError(
                f"{self.name} in {folder.absolute()} lacks {', '.join(names)}: add what is missing, or delete the "
                "folder to download the data set again"
            )
        return None


def _paths(folder: Path, names: tuple[str, ...] = _TRAIN + _TEST) -> list[Path]:
    suffix = ".bin" if folder.name == _BINARY else ""
    return [folder / f"{name}{suffix}" for name in names]


def _read(path: Path) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Images (N, 3072), the red, green and blue plane one after another, and labels (N,) of one file."""
    try:
        images, labels = _read_binary(path) if path.suffix == ".bin" else _read_pickle(path)
        if len(images) != len(labels) or not len(images):
            raise ValueError(f"it holds {len(images)} images and {len(labels)} labels")
        if labels.min() < 0 or labels.max() > 9:
            raise ValueError(f"its labels go from {labels.min()} to {labels.max()}, not from 0 to 9")
    except Exception as error:  # bytes that anyone may have written can fail in any way
        raise UserError(
            f"{path.absolute()} is no file of CIFAR-10 ({type(error).__name__}: {first_line(error)}): delete the "
            f"folder {path.parent.name} to download the data set again"
        ) from error
    return images, labels


def _read_binary(path: Path) -> tuple[Bytes, npt.NDArray[np.int64]]:
    values = np.fromfile(path, dtype=np.uint8)
    if len(values) % (1 + _PIXELS):
        raise ValueError(f"{len(values)} bytes are no whole number of records of {1 + _PIXELS}")
    records = values.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _read_pickle(path: Path) -> tuple[Bytes, npt.NDArray[np.int64]]:
    with path.open("rb") as file:
        # The official files are Python 2's, whose strings are bytes: latin1 keeps every one of them.
        batch = _DataUnpickler(file, encoding="latin1").load()
    array, labels = batch["data"], batch["labels"]
    if not isinstance(array, _Array) or not isinstance(labels, list) or {type(label) for label in labels} - {int}:
        raise ValueError("data is not an array, or labels are not a list of integers")
    images = array.decoded()
    if images.ndim != 2 or images.shape[1] != _PIXELS:
        raise ValueError(f"its images have shape {images.shape}, not (N, {_PIXELS})")
    return images, np.array(labels, dtype=np.int64)


class _DType:
    """Stands in for numpy.dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and fields, which bytes do not have


class _Array:
    """Stands in for numpy.ndarray while a pickle is read: what was stored, as plain values."""

    state: tuple[Any, ...] = ()

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state[1:]  # without the format's version

    def decoded(self) -> Bytes:
        """The array, if it is one of bytes."""
        shape, dtype, fortran_order, raw = self.state
        if not isinstance(dtype, _DType) or dtype.code not in ("u1", "B", "|u1", "uint8"):
            raise ValueError("its images are not of unsigned bytes")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran_order else "C")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


class _DataUnpickler(pickle.Unpickler):
    """Reads dicts, lists, strings and numbers, and arrays as :class:`_Array`; refuses everything else.

    Every callable that a pickle of arrays names is replaced with one from here, so that not even numpy's own
    unpickling, which trusts its input, sees what is in the file.
    """

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "numpy", "ndarray":
                return None  # an argument of _reconstruct's, which _Array ignores
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return _Array
            case (("numpy.core.numeric" | "numpy._core.numeric"), "_frombuffer"):
                return _from_buffer
            case "numpy", "dtype":
                return _DType
            case "_codecs", "encode":  # how Python 3 writes bytes in Python 2's format
                return str.encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of images needs: refused")
