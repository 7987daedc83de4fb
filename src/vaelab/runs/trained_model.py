"""A trained model with its images, from which metrics and plots are computed, in a training or afterwards."""

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
from vaelab.runtime.console import displayable
from vaelab.runtime.errors import UserError

_AT_ONCE = 500  # images in a batch, if they have at most 32 x 32 x 3 values; larger images come in smaller batches


class _Saved(Protocol):
    """A model with its objective and its configuration, from a checkpoint or a Lightning module."""

    @property
    def vae(self) -> VAE: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def config(self) -> dict[str, Any]: ...


class NamedImages(NamedTuple):
    """Images for a plot, and their names."""

    images: Images
    names: list[str]


@dataclass
class TrainedModel:
    """A trained model with its images.

    Attributes:
        vae: in evaluation mode.
        datamodule: the data module; its splits are loaded when an image is first needed.
        limit: the number of test images for plots of the whole test set; ``None`` for all.
        chosen: the images for plots of single images; ``None`` for the first test images.
        run: the run folder of its training, if there is one.
        choices: the chosen option of every group.
        has_variance: whether its objective trains the variance of the posterior. A plain autoencoder's does not.
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
        """A model from a checkpoint or a training, with its images; the other arguments are the attributes above."""
        choices, has_variance = saved.config.get("choices", {}), saved.objective.trains_variance
        return cls(saved.vae, datamodule, limit, None, run, choices, has_variance)

    @classmethod
    def load(cls, run: str | Path, data_dir: str | None = None, limit: int | None = None) -> "TrainedModel":
        """The model of a run or a checkpoint, on the CPU, with the data set of its training.

        Args:
            run: a run folder, a checkpoint, or ``latest``.
            data_dir: the folder of the data set, if it has moved.
            limit: see the attributes.

        Raises:
            UserError: there is no such checkpoint, or it is not a checkpoint of this project.
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
        """Training, validation and test images, loaded if needed."""
        if not self.datamodule.splits:
            self.datamodule.prepare_data()
            self.datamodule.setup()
        return self.datamodule.splits

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        assert self.splits  # the classes of a folder are known when it has been loaded
        return self.datamodule.source.classes

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The names of the factors from which the images were generated; empty if there are none."""
        return getattr(self.datamodule.source, "factor_names", ())

    @property
    def is_normalized(self) -> bool:
        """Whether the loss is a likelihood of these images."""
        return self.vae.likelihood.is_normalized(self.datamodule.is_binary)

    @property
    def unit(self) -> str:
        """The unit of the terms of the bound."""
        return bound_unit(self.is_normalized)

    @property
    def given(self) -> str:
        """The condition of a conditional model's likelihood, for the notes of metrics; empty for other models."""
        return "" if self.vae.classes is None else ", given their class"

    def images(self, split: str, limit: int | None = None) -> Images:
        """The images of a split, as the model gets them; ``limit`` evenly spaced images if there are more.

        They are evenly spaced because data sets are not in random order: the first half of MNIST's test images is
        easier than the second. With dynamic binarisation, training images are binarised once here.
        """
        whole = self.splits[split]
        found = whole.part(evenly_spaced(len(whole.images), limit))
        if split == "train" and self.datamodule.binarization == "dynamic":
            drawn = binarize(found.images, torch.Generator().manual_seed(SPLIT_SEEDS["train"]))
            found = found._replace(images=drawn)
        return found

    @cached_property
    def test(self) -> Images:
        """The test images for plots of the whole test set."""
        return self.images("test", self.limit)

    @cached_property
    def codes_of_test(self) -> tuple[Tensor, Tensor | None]:
        """The codes and log-variances of :attr:`test`, see :meth:`encode`."""
        return self.encode(self.test)

    def numbered(self, numbers: Sequence[int], split: str = "test") -> NamedImages:
        """The images with these numbers in a split, counted from 0.

        Raises:
            UserError: there are fewer images.
        """
        whole = self.splits[split]
        for number in numbers:
            if not 0 <= number < len(whole.images):
                raise UserError(f"there is no image {number}: the {split} images are 0 to {len(whole.images) - 1}")
        images = whole.part(torch.tensor(list(numbers), dtype=torch.int64))
        labels = images.labels.tolist()
        names = [f" ({self.classes[label]})" if len(self.classes) > 1 else "" for label in labels]
        return NamedImages(images, [f"image {number}{name}" for number, name in zip(numbers, names, strict=True)])

    def shown(self, count: int, split: str = "test") -> NamedImages:
        """The chosen images; if none were chosen, the first ``count`` images of a split."""
        if self.chosen is not None:
            return self.chosen
        return self.numbered(range(min(count, len(self.splits[split].images))), split)

    def label_of(self, wanted: int | str) -> int | None:
        """The number of a class, given its number or its name; ``None`` if there are no test images of it."""
        name = displayable(wanted) if isinstance(wanted, str) else wanted
        label = self.classes.index(name) if name in self.classes else name
        return label if isinstance(label, int) and (self.splits["test"].labels == label).any() else None

    def first_of(self, wanted: int | str, count: int = 1) -> list[int]:
        """The numbers of the first test images of a class, given its number or its name."""
        label = self.label_of(wanted)
        return [] if label is None else (self.splits["test"].labels == label).nonzero()[:count, 0].tolist()

    def protocol(self, split: str, count: int) -> str:
        """A description of the images on which a metric was computed."""
        total = len(self.splits[split].images)
        several = f"all {count:,}" if count == total else f"{count:,} of {total:,}"
        unofficial = "" if self.splits[split].is_official else " (not the official split)"
        return f"{several} {split} images{unofficial}, binarize={self.datamodule.binarization}"

    @property
    def at_once(self) -> int:
        """The number of images in a batch."""
        return max(1, _AT_ONCE * 32 * 32 * 3 // max(math.prod(self.vae.image_shape), 32 * 32 * 3))

    def pixels(self, images: Tensor) -> Tensor:
        """Stored images, uint8, as floats in [0, 1] on the model's device and in its precision."""
        return to_floats(images.to(self.device)).to(next(self.vae.parameters()).dtype)

    def batches(self, images: Images) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of pixels and labels, on the model's device."""
        for x, y in zip(images.images.split(self.at_once), images.labels.split(self.at_once), strict=True):
            yield self.pixels(x), y.to(self.device)

    @torch.no_grad()
    def posteriors(self, images: Images) -> Iterator[tuple[Tensor, Tensor, Latent]]:
        """Images as the model takes them, with their labels and posteriors q(z|x), batch by batch."""
        for x, y in self.batches(images):
            yield x, y, self.vae.encode(x, y)

    @torch.no_grad()
    def encode(self, images: Images) -> tuple[Tensor, Tensor | None]:
        """The centres of the posteriors, (N, D), and their log-variances, (N, D), or ``None``; on the CPU."""
        centres: list[Tensor] = []
        log_variances: list[Tensor] = []
        for _, _, q_z in self.posteriors(images):
            centres.append(q_z.centre.float().cpu())
            if (logs := self.log_variance(q_z)) is not None:
                log_variances.append(logs)
        spread = torch.cat(log_variances) if log_variances else None
        return torch.cat(centres), spread if spread is not None and spread.isfinite().all() else None

    def log_variance(self, q_z: Latent) -> Tensor | None:
        """The log-variances of posteriors, (B, D), on the CPU; ``None`` if they do not exist or were not trained."""
        try:
            return q_z.variance.float().log().cpu() if self.has_variance else None
        except NotImplementedError:  # the variance of a flow has no closed form
            return None

    def codes(self, images: Images) -> Tensor:
        """The centres of the posteriors, (N, D), on the CPU."""
        return self.encode(images)[0]

    @torch.no_grad()
    def sample_posterior(self, images: Images) -> Tensor:
        """A sample from the posterior of each image, (N, D), on the CPU."""
        return torch.cat([self.vae.encode(x, y).rsample().float().cpu() for x, y in self.batches(images)])

    @torch.no_grad()
    def posterior(self, images: Images) -> Latent:
        """q(z|x) of all images, in one batch."""
        return self.vae.encode(self.pixels(images.images), images.labels.to(self.device))

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The means of p(x|z), (N, C, H, W), on the CPU.

        Args:
            z: latents (N, D).
            y: labels (N,), or weights of the classes, for a conditional model.
        """
        like = next(self.vae.parameters())
        labels = [None] * len(z) if y is None else y.to(self.device).split(self.at_once)
        parts = zip(z.split(self.at_once), labels, strict=False)
        return torch.cat([self.vae.decode(part.to(like), y).mean.float().cpu() for part, y in parts])

    def reconstruct(self, images: Images) -> Tensor:
        """The means of p(x|z) at the codes of images, (N, C, H, W), on the CPU."""
        return self.decode(self.codes(images), images.labels)


def evenly_spaced(count: int, limit: int | None) -> Tensor:
    """The numbers of ``limit`` evenly spaced images among ``count``; of all if ``limit`` is ``None`` or larger."""
    few = count if limit is None else min(limit, count)
    return torch.arange(few) * count // few
