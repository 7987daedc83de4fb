"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747), downloaded by torchvision."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torchvision.datasets
from torch import Tensor

from vaelab.data.download import absent, downloading, named_folders
from vaelab.data.source import Images, recognized
from vaelab.runtime.errors import UserError, first_line

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class MNIST:
    """70,000 grey images of 28x28 pixels in ten classes: 60,000 training images and 10,000 test images.

    Args:
        data_dir: the folder of data sets. The four IDX files are in ``<data_dir>/<name>/raw``, where torchvision puts
            them, in ``<data_dir>/<name>``, ``<data_dir>/raw`` or ``<data_dir>``, compressed (``.gz``) or not.
        name: ``MNIST`` or ``FashionMNIST``.

    Raises:
        UserError: the files are missing and cannot be downloaded, or they are damaged.
    """

    # The first labels of the official files. Other files work too, but published metrics are for the official ones.
    official: ClassVar[dict[str, tuple[list[int], list[int]]]] = {
        "MNIST": ([5, 0, 4, 1, 9, 2, 1, 3, 1, 4], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]),
        "FashionMNIST": ([9, 0, 0, 3, 0, 2, 7, 2, 5, 5], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]),
    }

    def __init__(self, data_dir: str | Path, name: Literal["MNIST", "FashionMNIST"] = "MNIST") -> None:
        self.data_dir = Path(data_dir).expanduser()
        self.name = name
        self.classes = _CLOTHES if name == "FashionMNIST" else tuple("0123456789")
        self._dataset = getattr(torchvision.datasets, name)

    def is_prepared(self) -> bool:
        """Whether the four files exist."""
        return self._files() is not None

    def prepare(self) -> None:
        """Downloads the four files if one is missing."""
        if self.is_prepared():
            return
        folder = self._folder
        with downloading(self.name, folder, _FILES, self.data_dir) as temporary:
            self._dataset(str(temporary), download=True)
            folder.mkdir(parents=True, exist_ok=True)
            for file in _FILES:
                os.replace(temporary / self.name / "raw" / file, folder / file)

    def load(self, train: bool) -> Images:
        """The 60,000 training images or the 10,000 test images."""
        files = self._files()
        if files is None:
            raise absent(self.name, self._folder, _FILES)
        paths = files[:2] if train else files[2:]
        folder, which = paths[0].parent, "training" if train else "test"
        try:
            images, labels = map(_idx, paths)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(
                f"the {which} files of {self.name} in {folder.absolute()} cannot be read "
                f"({type(error).__name__}: {first_line(error)}): delete them to download them again"
            ) from error
        if len(images) != len(labels) or images.shape[1:] != (28, 28) or not len(labels) or labels.max() > 9:
            raise UserError(
                f"the {which} files of {self.name} in {folder.absolute()} hold images of "
                f"shape {tuple(images.shape)} and {len(labels)} labels, not as many of both, 28x28, and labels of ten "
                "classes: delete them to download them again"
            )
        position, count = (0, 60_000) if train else (1, 10_000)
        if folder in self._shared:
            self._check_name(labels, position, folder)
        what = f"the {which} split of {self.name} in {self.data_dir}"
        return recognized(images.unsqueeze(1), labels.long(), self.official[self.name][position], count, what)

    @property
    def _folder(self) -> Path:
        """The folder in which torchvision puts the files."""
        return self.data_dir / self.name / "raw"

    @property
    def _shared(self) -> tuple[Path, Path]:
        """Folders that do not tell whose files they hold: MNIST and Fashion-MNIST have files of the same names."""
        return self.data_dir / "raw", self.data_dir

    def _files(self) -> list[Path] | None:
        """The four files, compressed or not, in the first folder that has them all."""
        named = [folder / sub for folder in named_folders(self.data_dir, self.name) for sub in ("raw", ".")]
        for folder in (self._folder, *named, *self._shared):
            found = [_existing(folder, file) for file in _FILES]
            if all(path is not None for path in found):
                return [path for path in found if path is not None]
        return None

    def _check_name(self, labels: Tensor, position: int, folder: Path) -> None:
        """Refuses the files of the other data set, whose files have the same names."""
        for other, option in (("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist")):
            first = self.official[other][position]
            if other != self.name and labels[: len(first)].tolist() == first:
                raise UserError(f"the files in {folder.absolute()} are those of {other}: train with data={option}")


def _existing(folder: Path, file: str) -> Path | None:
    """A file of a data set: as it was published, unpacked, or unpacked by a program that changes its name."""
    names = (file, f"{file}.gz", file.replace("-idx", ".idx"), f"{file.replace('-idx', '.idx')}.gz", f"{file}/{file}")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _idx(path: Path) -> Tensor:
    """The array of bytes of an IDX file."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read()
    kind, dimensions = int.from_bytes(content[:3], "big"), content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if kind != 8 or not dimensions or len(content) != start + math.prod(shape):
        raise ValueError(f"{path.name} is not an IDX file of bytes with as many values as its header says")
    return (
        torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)
        if shape[0]
        else (torch.empty(shape, dtype=torch.uint8))
    )
