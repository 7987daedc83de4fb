"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747), read through torchvision."""

import os
from pathlib import Path
from typing import ClassVar, Literal

import torchvision.datasets

from vaelab.data.download import downloading
from vaelab.data.source import Images, recognized
from vaelab.runtime.errors import UserError, first_line

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class MNIST:
    """70,000 grey images of 28x28 pixels in ten classes: 60,000 training images and 10,000 test images.

    Args:
        data_dir: the folder of torchvision's data sets; the four idx files are in ``<data_dir>/<name>/raw``.
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
        return all((self.data_dir / self.name / "raw" / file).is_file() for file in _FILES)

    def prepare(self) -> None:
        """Downloads the four files if one is missing."""
        folder = self.data_dir / self.name / "raw"
        if self.is_prepared():
            return
        with downloading(self.name, folder, _FILES, self.data_dir) as temporary:
            self._dataset(str(temporary), download=True)
            folder.mkdir(parents=True, exist_ok=True)
            for file in _FILES:
                os.replace(temporary / self.name / "raw" / file, folder / file)

    def load(self, train: bool) -> Images:
        """The 60,000 training images or the 10,000 test images."""
        folder = self.data_dir / self.name / "raw"
        try:
            dataset = self._dataset(str(self.data_dir), train=train)
        except Exception as error:  # torchvision's reader raises errors of many types for a damaged file
            raise UserError(
                f"the {'training' if train else 'test'} files of {self.name} in {folder.absolute()} cannot be read "
                f"({type(error).__name__}: {first_line(error)}): delete them to download them again"
            ) from error
        images, labels = dataset.data, dataset.targets
        if len(images) != len(labels) or images.shape[1:] != (28, 28) or not len(labels) or labels.max() > 9:
            raise UserError(
                f"the {'training' if train else 'test'} files of {self.name} in {folder.absolute()} hold images of "
                f"shape {tuple(images.shape)} and {len(labels)} labels, not as many of both, 28x28, and labels of ten "
                "classes: delete them to download them again"
            )
        training, test = self.official[self.name]
        first, count, split = (training, 60_000, "training") if train else (test, 10_000, "test")
        what = f"the {split} split of {self.name} in {self.data_dir}"
        return recognized(images.unsqueeze(1), labels, first, count, what)
