"""A trained model with its images: what measures are taken of and pictures are drawn of, whoever trained it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vaelab.data.batches import binarize, to_floats
from vaelab.data.datamodule import SPLIT_SEEDS, ImageDataModule
from vaelab.data.source import Images
from vaelab.models.distributions.latents import Latent
from vaelab.models.vae import VAE
from vaelab.objectives import Objective
from vaelab.runs import checkpoint
from vaelab.runs.metrics import bound_unit
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.errors import UserError

_AT_ONCE = 500  # images, of at most 32 x 32 x 3 numbers; of larger ones fewer


class _Saved(Protocol):
    """A model with its objective and its configuration: a checkpoint's, or a training's Lightning module."""

    @property
    def vae(self) -> VAE: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def config(self) -> dict[str, Any]: ...


class NamedImages(NamedTuple):
    """Images that pictures are to show, and what each is called."""

    images: Images
    names: list[str]


@dataclass
class TrainedModel:
    """A trained model with its images.

    Attributes:
        vae: in evaluation mode.
        datamodule: whose splits are loaded when the first image is looked at.
        limit: so many test images make up the pictures that are of all of them; ``None`` for all there are.
        chosen: images that pictures of single images show; ``None`` for the first test images.
        run: the folder that its training has left, where there is one.
        choices: by which it was configured: group to option.
        has_variance: whether its training knew the posteriors' variance, which that of a plain autoencoder does not.
    """

    vae: VAE
    datamodule: ImageDataModule
    limit: int | None = None
    chosen: NamedImages | None = None
    run: RunFolder | None = None
    choices: dict[str, Any] = field(default_factory=dict)
    has_variance: bool = True

    @classmethod
    def of(
        cls, saved: _Saved, datamodule: ImageDataModule, limit: int | None = None, run: RunFolder | None = None
    ) -> "TrainedModel":
        """The model of a checkpoint or of a training, with images; the other arguments as above."""
        choices, has_variance = saved.config.get("choices", {}), saved.objective.trains_variance
        return cls(saved.vae, datamodule, limit, None, run, choices, has_variance)

    @classmethod
    def load(cls, run: str | Path, data_dir: str | None = None, limit: int | None = None) -> "TrainedModel":
        """The model of a run or a checkpoint, on the CPU, with the images that it was trained on.

        Args:
            run: a run folder, a checkpoint, or ``latest``.
            data_dir: where the data set's files are now, if they have moved.
            limit: as above.

        Raises:
            UserError: there is no such checkpoint, or it is none of this project.
        """
        path = checkpoint.find(run)
        saved = checkpoint.rebuild(path)
        datamodule = checkpoint.rebuild_data(saved.config, path, data_dir)
        return cls.of(saved, datamodule, limit, RunFolder.around(path))

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @property
    def splits(self) -> dict[str, Images]:
        """Training, validation and test images, as the data module has them."""
        if not self.datamodule.splits:
            self.datamodule.prepare_data()
            self.datamodule.setup()
        return self.datamodule.splits

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        assert self.splits  # a folder's classes are known once it has been looked at
        return self.datamodule.source.classes

    @property
    def factor_names(self) -> tuple[str, ...]:
        """What the factors are called that the images were made from."""
        return getattr(self.datamodule.source, "factor_names", ())

    @property
    def is_normalized(self) -> bool:
        """Whether the loss is a likelihood of these images."""
        return self.vae.likelihood.is_normalized(self.datamodule.is_binary)

    @property
    def unit(self) -> str:
        """The unit of the terms of its bound."""
        return bound_unit(self.is_normalized)

    @property
    def given(self) -> str:
        """What figures of the likelihood of a conditional model are conditional on, for their notes."""
        return "" if self.vae.classes is None else ", given their class"

    def images(self, split: str, limit: int | None = None) -> Images:
        """Images of a split as the model sees them, evenly spaced where there are more than asked for.

        Data sets are not in an order of chance: the first half of MNIST's test images is easier than the second.
        Training images that are binarised anew at every visit are so once here.
        """
        whole = self.splits[split]
        found = whole.part(evenly_spaced(len(whole.images), limit))
        if split == "train" and self.datamodule.binarization == "dynamic":
            drawn = binarize(found.images, torch.Generator().manual_seed(SPLIT_SEEDS["train"]))
            found = found._replace(images=drawn)
        return found

    @cached_property
    def test(self) -> Images:
        """The test images that make up pictures of all of them."""
        return self.images("test", self.limit)

    @cached_property
    def codes_of_test(self) -> tuple[Tensor, Tensor | None]:
        """Their codes and log-variances, see :meth:`encode`."""
        return self.encode(self.test)

    def numbered(self, numbers: Sequence[int], split: str = "test") -> NamedImages:
        """Images by their numbers in a split, from 0.

        Raises:
            UserError: there are fewer images.
        """
        whole = self.splits[split]
        for number in numbers:
            if not 0 <= number < len(whole.images):
                raise UserError(f"there is no image {number}: the {split} images are 0 to {len(whole.images) - 1}")
        images = whole.part(torch.tensor(list(numbers), dtype=torch.int64))
        labels = images.labels.tolist()
        of = [f" ({self.classes[label]})" if len(self.classes) > 1 else "" for label in labels]
        return NamedImages(images, [f"image {number}{name}" for number, name in zip(numbers, of, strict=True)])

    def shown(self, count: int, split: str = "test") -> NamedImages:
        """The images that someone has chosen; where nobody has, so many of the first of a split."""
        if self.chosen is not None:
            return self.chosen
        return self.numbered(range(min(count, len(self.splits[split].images))), split)

    def label_of(self, wanted: int | str) -> int | None:
        """A class given by its number or its name, if there are test images of it."""
        label = self.classes.index(wanted) if wanted in self.classes else wanted
        return label if isinstance(label, int) and (self.splits["test"].labels == label).any() else None

    def first_of(self, wanted: int | str, count: int = 1) -> list[int]:
        """The numbers of the first test images of a class, given by its number or its name."""
        label = self.label_of(wanted)
        return [] if label is None else (self.splits["test"].labels == label).nonzero()[:count, 0].tolist()

    def protocol(self, split: str, count: int) -> str:
        """Which images a figure is of."""
        total = len(self.splits[split].images)
        several = f"all {count:,}" if count == total else f"{count:,} of {total:,}"
        unofficial = "" if self.splits[split].is_official else " (not the official split)"
        return f"{several} {split} images{unofficial}, binarize={self.datamodule.binarization}"

    @property
    def at_once(self) -> int:
        """How many images go through the networks together."""
        return max(1, _AT_ONCE * 32 * 32 * 3 // max(math.prod(self.vae.image_shape), 32 * 32 * 3))

    def pixels(self, images: Tensor) -> Tensor:
        """Stored images, uint8, as floats in [0, 1] on the model's device and in its precision."""
        return to_floats(images.to(self.device)).to(next(self.vae.parameters()).dtype)

    def batches(self, images: Images) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as the model takes them, with their labels, on its device."""
        for x, y in zip(images.images.split(self.at_once), images.labels.split(self.at_once), strict=True):
            yield self.pixels(x), y.to(self.device)

    @torch.no_grad()
    def posteriors(self, images: Images) -> Iterator[tuple[Tensor, Tensor, Latent]]:
        """Images as the model takes them, with their labels and posteriors q(z|x), batch by batch."""
        for x, y in self.batches(images):
            yield x, y, self.vae.encode(x, y)

    @torch.no_grad()
    def encode(self, images: Images) -> tuple[Tensor, Tensor | None]:
        """The centres (N, D) of the posteriors of images and, of those that have a variance, its logarithm (N, D)."""
        centres: list[Tensor] = []
        log_variances: list[Tensor] = []
        for _, _, q_z in self.posteriors(images):
            centres.append(q_z.centre.float().cpu())
            if (logs := self.log_variance(q_z)) is not None:
                log_variances.append(logs)
        spread = torch.cat(log_variances) if log_variances else None
        return torch.cat(centres), spread if spread is not None and spread.isfinite().all() else None

    def log_variance(self, q_z: Latent) -> Tensor | None:
        """The log-variances (B, D) of posteriors, on the CPU; ``None`` where there are none that were trained."""
        try:
            return q_z.variance.float().log().cpu() if self.has_variance else None
        except NotImplementedError:  # of a flow
            return None

    def codes(self, images: Images) -> Tensor:
        """The centres (N, D) of the posteriors of images, on the CPU."""
        return self.encode(images)[0]

    @torch.no_grad()
    def sample_posterior(self, images: Images) -> Tensor:
        """A latent (N, D) of each of the images, drawn from its posterior, on the CPU."""
        return torch.cat([self.vae.encode(x, y).rsample().float().cpu() for x, y in self.batches(images)])

    @torch.no_grad()
    def posterior(self, images: Images) -> Latent:
        """q(z|x) of images, all at once."""
        return self.vae.encode(self.pixels(images.images), images.labels.to(self.device))

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Means of p(x|z), (N, C, H, W), on the CPU, of latents (N, D) and labels (N,), or weights of the classes."""
        like = next(self.vae.parameters())
        labels = [None] * len(z) if y is None else y.to(self.device).split(self.at_once)
        parts = zip(z.split(self.at_once), labels, strict=False)
        return torch.cat([self.vae.decode(part.to(like), y).mean.float().cpu() for part, y in parts])

    def reconstruct(self, images: Images) -> Tensor:
        """Means of p(x|z), (N, C, H, W), on the CPU, at the codes of images."""
        return self.decode(self.codes(images), images.labels)


def evenly_spaced(count: int, limit: int | None) -> Tensor:
    """The numbers of so many of all images, evenly spaced."""
    few = count if limit is None else min(limit, count)
    return torch.arange(few) * count // few
