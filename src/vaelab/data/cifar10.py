"""CIFAR-10 (Krizhevsky 2009), from its binary version: reading it unpickles nothing."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torchvision.datasets.utils import download_and_extract_archive

from vaelab.data.download import absent, downloading, named_folders
from vaelab.data.source import Images, recognized
from vaelab.runtime.errors import UserError, first_line

_ARCHIVE = "cifar-10-binary.tar.gz"
_URL = f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}"
_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_FOLDER, _PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"
_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST = ("test_batch.bin",)
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, green and blue planes


class CIFAR10:
    """60,000 colour photographs of 32x32 pixels in ten classes: 50,000 training images and 10,000 test images.

    Args:
        data_dir: the folder of data sets. The six files of the binary version are in
            ``<data_dir>/cifar-10-batches-bin``, or are downloaded to it. They may also be in ``<data_dir>`` or in
            a subfolder such as ``<data_dir>/CIFAR10``, or in the archive there that is published.

    Raises:
        UserError: the files are missing and cannot be downloaded, or they are damaged.
    """

    name = "CIFAR10"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    # The first labels of the official files. Other files work too, but published metrics are for the official ones.
    official = ([6, 9, 9, 4, 1, 1, 2, 7, 8, 3], [3, 8, 8, 0, 6, 6, 1, 6, 3, 1])

    def __init__(self, data_dir: str | Path) -> None:
        self.data_dir = Path(data_dir).expanduser()

    def is_prepared(self) -> bool:
        """Whether the files of the binary version exist."""
        return self._place() is not None

    def prepare(self) -> None:
        """Downloads the binary version, 170 MB, if it is missing."""
        if self._place() is not None:
            return
        with downloading(self.name, self.data_dir, [_FOLDER], self.data_dir) as temporary:
            download_root = next((place for place in self._near if (place / _ARCHIVE).is_file()), temporary)
            download_and_extract_archive(_URL, str(download_root), str(temporary), filename=_ARCHIVE, md5=_MD5)
            if self._place() is None:  # another process may have downloaded it meanwhile
                os.replace(temporary / _FOLDER, self.data_dir / _FOLDER)

    def load(self, train: bool) -> Images:
        """The 50,000 training images or the 10,000 test images."""
        folder = self._place()
        if folder is None:
            raise absent(self.name, self.data_dir, [_FOLDER])
        records = np.concatenate([_records(folder / name) for name in (_TRAIN if train else _TEST)])
        images = torch.from_numpy(records[:, 1:].reshape(-1, *_SHAPE))
        labels = torch.from_numpy(records[:, 0].astype(np.int64))
        training, test = self.official
        first, count, split = (training, 50_000, "training") if train else (test, 10_000, "test")
        return recognized(images, labels, first, count, f"the {split} split of {self.name} in {folder}")

    @property
    def _near(self) -> list[Path]:
        """The folders that may hold the folder of the binary version, its files, or its archive."""
        return [self.data_dir, *named_folders(self.data_dir, self.name), *named_folders(self.data_dir, "cifar-10")]

    def _place(self) -> Path | None:
        """The folder of the files of the binary version; ``None`` if there is none.

        Raises:
            UserError: some of its files are missing, or only the Python version exists.
        """
        for folder in (place / sub for place in self._near for sub in (_FOLDER, ".")):
            if all((folder / name).is_file() for name in _TRAIN + _TEST):
                return folder
        folder = self.data_dir / _FOLDER
        if folder.is_dir():
            if missing := [name for name in _TRAIN + _TEST if not (folder / name).is_file()]:
                raise UserError(
                    f"{self.name} in {folder.absolute()} lacks {', '.join(missing)}: add what is missing, or delete "
                    "the folder to download the data set again"
                )
            return folder  # another process has put it there meanwhile
        if (self.data_dir / _PYTHON_FOLDER).is_dir():
            raise UserError(
                f"{self.name} in {(self.data_dir / _PYTHON_FOLDER).absolute()} is the Python version, but the binary "
                f"version is needed: type curl -L {_URL} | tar -xz -C {self.data_dir.absolute()}"
            )
        return None


def _records(path: Path) -> npt.NDArray[np.uint8]:
    """The records of one file, (N, 3073)."""
    try:
        values = np.fromfile(path, dtype=np.uint8)
        if not len(values) or len(values) % _RECORD:
            raise ValueError(f"{len(values)} bytes are not a whole number of records of {_RECORD}")
        records = values.reshape(-1, _RECORD)
        if records[:, 0].max() > 9:
            raise ValueError(f"its labels go up to {records[:, 0].max()}, not to 9")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path.absolute()} is not a CIFAR-10 file ({type(error).__name__}: {first_line(error)}): delete the "
            f"folder {path.parent.name} to download the data set again"
        ) from error
    return records
