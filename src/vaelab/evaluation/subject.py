"""What is evaluated, and how figures of it are kept."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vaelab import reporting
from vaelab.data.batches import binarize
from vaelab.data.datamodule import SPLIT_SEEDS, ImageDataModule
from vaelab.data.source import Images
from vaelab.distributions import Latent
from vaelab.errors import UserError
from vaelab.figures import Picture
from vaelab.reporting import Figure
from vaelab.vae import VAE

_ENCODED_AT_ONCE = 500


class NotMeasured(UserError):  # noqa: N818  # named by what it says
    """Why a measure does not apply: an error where it was asked for, else a remark."""


@dataclass
class Measured:
    """What a measure comes to.

    Attributes:
        figures: by name.
        pictures: by the name of their file.
        remarks: lines to be read beside the figures.
        arrays: figures of single images or dimensions, by name.
    """

    figures: dict[str, Figure]
    pictures: dict[str, Picture] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)


@dataclass
class Subject:
    """A trained model with its images.

    Attributes:
        vae: in evaluation mode, in 32 bits.
        datamodule: set up.
    """

    vae: VAE
    datamodule: ImageDataModule

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @property
    def is_normalized(self) -> bool:
        """Whether the loss is a likelihood of these images."""
        return self.vae.likelihood.is_normalized(self.datamodule.is_binary)

    @property
    def unit(self) -> str:
        return reporting.unit(self.is_normalized)

    @property
    def given(self) -> str:
        """What figures of the likelihood of a conditional model are conditional on, for their notes."""
        return "" if self.vae.classes is None else ", given their class"

    def images(self, split: str, limit: int | None = None) -> Images:
        """Images of a split as the model sees them, evenly spaced where there are more than asked for.

        Data sets are not in an order of chance: the first half of MNIST's test images is easier than the second.
        Training images that are binarised anew at every visit are so once here.
        """
        whole = self.datamodule.splits[split]
        found = whole.part(spaced(len(whole.images), limit))
        if split == "train" and self.datamodule.binarization == "dynamic":
            drawn = binarize(found.images, torch.Generator().manual_seed(SPLIT_SEEDS["train"]))
            found = found._replace(images=drawn)
        return found

    def protocol(self, split: str, count: int) -> str:
        """Which images a figure is of."""
        total = len(self.datamodule.splits[split].images)
        several = f"all {count:,}" if count == total else f"{count:,} of {total:,}"
        return f"{several} {split} images, binarize={self.datamodule.binarization}"

    def batches(self, images: Images) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as floats in [0, 1] with their labels, on the model's device."""
        parts = zip(images.images.split(_ENCODED_AT_ONCE), images.labels.split(_ENCODED_AT_ONCE), strict=True)
        for x, y in parts:
            yield x.to(self.device).float() / 255, y.to(self.device)

    @torch.no_grad()
    def codes(self, images: Images) -> Tensor:
        """The centres (N, D) of the posteriors of images, on the CPU."""
        return torch.cat([self.vae.encode(x, y).centre.cpu() for x, y in self.batches(images)])

    @torch.no_grad()
    def posterior(self, images: Images) -> Latent:
        """q(z|x) of images, all at once."""
        return self.vae.encode(images.images.to(self.device).float() / 255, images.labels.to(self.device))


def spaced(count: int, limit: int | None) -> Tensor:
    """The numbers of so many of all images, evenly spaced."""
    few = count if limit is None else min(limit, count)
    return torch.arange(few) * count // few
