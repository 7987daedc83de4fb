"""A small data set for what is measured."""

from collections.abc import Sequence
from typing import Any

import torch

from vaelab.data.datamodule import ImageDataModule
from vaelab.data.source import Images


class Grey:
    """Images whose brightness follows their class, of which there are three, and a known factor."""

    name = "grey"
    classes: tuple[str, ...] = ("dark", "middle", "light")
    factor_names = ("brightness", "noise")

    def __init__(self, image_shape: Sequence[int], tested: int = 45) -> None:
        self.image_shape, self.tested = image_shape, tested

    def prepare(self) -> None:
        pass

    def load(self, train: bool) -> Images:
        count = 60 if train else self.tested
        generator = torch.Generator().manual_seed(int(train))
        labels = torch.arange(count) % 3
        noise = torch.rand(count, generator=generator)
        pixels = 255 * torch.rand(count, *self.image_shape, generator=generator)
        images = (0.25 * pixels + 90 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
        return Images(images, labels, torch.stack([labels.float(), noise], 1))


def grey_module(image_shape: Sequence[int], tested: int = 45, **options: Any) -> ImageDataModule:
    """Its data module, set up: 50 training, 10 validation and so many test images."""
    module = ImageDataModule(
        Grey(image_shape, tested), list(image_shape), **{"validation": 10, "batch_size": 16, **options}
    )
    module.setup()
    return module
