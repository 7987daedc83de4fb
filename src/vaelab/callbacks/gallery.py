"""The pictures of a tested model: reconstructions, latent space, errors, losses, and ways through latent space.

Each picture is a function of a :class:`Subject` model, and an entry of ``callbacks.gallery.pictures``.
"""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from vaelab import figures, reporting
from vaelab.callbacks.drawing import CannotDraw, at_rest, excused, keep, pixels
from vaelab.figures import Picture
from vaelab.figures.charts import Curve
from vaelab.loggers import CSVLogger
from vaelab.module import VAEModule

_BATCH = 500
_MOST_CLASSES = 100  # more would not fit into a picture


class Subject:
    """A tested model and its test images, with what several pictures are made of, computed when first asked for.

    Args:
        trainer: that tested it.
        module: the model.
        images: use the first so many test images.
    """

    def __init__(self, trainer: L.Trainer, module: VAEModule, images: int) -> None:
        self.trainer, self.vae = trainer, module.vae
        self.like = next(module.parameters())
        self.datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        split = self.datamodule.splits["test"].part(slice(images))
        self.images: Tensor = split.images
        self.labels: Tensor = split.labels
        self.factors: Tensor | None = split.factors
        self.classes: tuple[str, ...] = self.datamodule.source.classes
        self.factor_names: tuple[str, ...] = getattr(self.datamodule.source, "factor_names", ())

    def pixels(self, which: Any) -> Tensor:
        """Some of the images as floats in [0, 1], on the model's device."""
        return pixels(self.images[which], self.like)

    @cached_property
    def codes(self) -> tuple[Tensor, Tensor | None]:
        """Posterior centres (N, D), and log-variances (N, D) where the posterior has a variance."""
        means, variances = [], []
        for start in range(0, len(self.images), _BATCH):
            which = slice(start, start + _BATCH)
            q_z = self.vae.encode(self.pixels(which), self.labels_of(which))
            means.append(q_z.centre.float().cpu())
            try:
                variances.append(q_z.variance.float().log().cpu())
            except NotImplementedError:
                continue
        log_variances = torch.cat(variances) if variances else None
        return torch.cat(means), log_variances if log_variances is None or log_variances.isfinite().all() else None

    def labels_of(self, which: Any) -> Tensor:
        """The labels of some of the images, on the model's device."""
        return self.labels[which].to(self.like.device)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Means of p(x|z), (N, C, H, W), of latents (N, D) and, for a conditional model, labels (N,)."""
        labels = [None] * len(z) if y is None else y.to(self.like.device).split(_BATCH)
        parts = zip(z.split(_BATCH), labels, strict=False)
        return torch.cat([self.vae.decode(part.to(self.like), y).mean.float().cpu() for part, y in parts])

    def blended_labels(self, ends: Sequence[Any], steps: int) -> Tensor | None:
        """Weights of the classes on the way from one image to another, (steps, classes); of a conditional model."""
        if self.vae.classes is None:
            return None
        first, last = F.one_hot(self.labels[ends], self.vae.classes).float()
        return torch.lerp(first, last, torch.linspace(0, 1, steps)[:, None])

    def first_of(self, wanted: int | str) -> int | None:
        """The first image of a class, given by its number or its name."""
        label = self.classes.index(wanted) if wanted in self.classes else wanted
        found = (self.labels == label).nonzero() if isinstance(label, int) else self.labels[:0]
        return int(found[0]) if len(found) else None

    def name_of(self, image: int) -> str:
        """The class of an image."""
        return self.classes[int(self.labels[image])] if len(self.classes) > 1 else f"image {image + 1}"


class Gallery(L.Callback):
    """Draws pictures once, after the test, with the weights and of the images that were tested.

    Each goes to ``<folder>/<name>.png`` and, as ``test/<name>``, to W&B and TensorBoard.

    Args:
        folder: where the files go.
        pictures: name to function; ``None`` for one that is left out.
        images: look at the first so many test images.
    """

    def __init__(
        self, folder: str, pictures: Mapping[str, Callable[[Subject], Picture] | None], images: int = 10_000
    ) -> None:
        self.folder, self.pictures, self.images = Path(folder), pictures, images

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, VAEModule)
        subject = Subject(trainer, pl_module, self.images)
        for name, draw in self.pictures.items():
            if draw is not None:
                with excused(name), at_rest(pl_module):
                    keep(trainer, self.folder, name, draw(subject), "test")


def class_reconstructions(subject: Subject, per_class: int = 2, seed: int = 0) -> Picture:
    """Random test images of each class beside their reconstructions; where there are no classes, of all.

    Args:
        subject: the model.
        per_class: images.
        seed: of the choice.
    """
    order = torch.randperm(len(subject.images), generator=torch.Generator().manual_seed(seed))
    shuffled = subject.labels[order]
    groups = [order[shuffled == label] for label in range(min(len(subject.classes), _MOST_CLASSES))]
    groups = [group[:per_class] for group in groups if len(group) >= per_class]
    labels, classes = subject.labels, subject.classes
    if len(groups) < 2:
        groups = list(order[: 10 * per_class].split(per_class))
        groups = [group for group in groups if len(group) == per_class]
        labels = torch.zeros(len(subject.images), dtype=torch.int64)
        for i, group in enumerate(groups):
            labels[group] = i
        classes = ("",) * len(groups)
    if not groups:
        raise CannotDraw(f"there are fewer than {per_class} images")
    chosen = torch.cat(groups)
    originals = subject.pixels(chosen)
    reconstructions = subject.vae.reconstruct(originals, subject.labels_of(chosen))
    return figures.class_reconstructions(originals.cpu(), reconstructions.cpu(), labels[chosen], classes)


def latents(subject: Subject) -> Picture:
    """Posterior means and log-variances of the test images in two dimensions, coloured by class."""
    return figures.latent_scatter(*subject.codes, subject.labels, subject.classes)


def errors(subject: Subject) -> Picture:
    """A histogram of the test images' mean squared reconstruction errors."""
    means, _ = subject.codes
    parts = []
    for start in range(0, len(means), _BATCH):
        which = slice(start, start + _BATCH)
        difference = subject.decode(means[which], subject.labels[which]) - subject.pixels(which).float().cpu()
        parts.append(difference.square().mean((1, 2, 3)))
    return figures.error_histogram(torch.cat(parts))


def manifold(subject: Subject, count: int = 20, any_size: bool = False) -> Picture:
    """Images decoded from a plane of latent space; one row for a single dimension.

    Args:
        subject: the model.
        count: images to a side.
        any_size: of more than two dimensions, take the two whose posterior means vary most; else they have no such
            picture.
    """
    latent_dim = subject.vae.latent_dim
    dims = list(range(min(latent_dim, 2)))
    if latent_dim > 2:
        if not any_size:
            raise CannotDraw(f"latent_dim is {latent_dim}, not 2; callbacks.gallery.pictures.manifold.any_size=true")
        dims = subject.codes[0].var(0).argsort(descending=True)[:2].tolist()
    z = figures.manifold_latents(count, latent_dim, dims)
    images = subject.decode(z, torch.zeros(len(z), dtype=torch.int64))  # of a conditional model's first class
    return figures.manifold(images, latent_dim, dims)


def losses(subject: Subject, terms: Sequence[str] = ("loss", "reconstruction", "kl")) -> Picture:
    """Training and validation terms over the steps, from the run's ``metrics.csv``.

    Args:
        subject: the model.
        terms: as logged.
    """
    logger = next((logger for logger in subject.trainer.loggers if isinstance(logger, CSVLogger)), None)
    if logger is None:
        raise CannotDraw("there is no metrics.csv; logger=many or logger=csv writes it")
    with logger.path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves: dict[str, dict[str, Curve]] = {}
    for term in terms:
        for split in ("train", "val"):
            points = [(int(row["step"]) + 1, float(row[name])) for row in rows if row.get(name := f"{split}/{term}")]
            if points:
                steps, values = zip(*points, strict=True)
                curves.setdefault(term, {})[split] = (steps, values)
    if not curves:
        raise CannotDraw(f"metrics.csv holds none of {', '.join(terms)}")
    batches = int(subject.trainer.num_training_batches) or 1
    unit = reporting.unit(subject.vae.likelihood.is_normalized(subject.datamodule.is_binary))
    units = {term: f"{'nats' if term == 'kl' else unit}, per image" for term in curves}
    return figures.loss_curves(curves, math.ceil(batches / subject.trainer.accumulate_grad_batches), units)


def path(subject: Subject, start: int | str = 8, end: int | str = 6, steps: int = 11) -> Picture:
    """Images decoded along the straight line between the posterior means of two test images, between these.

    Args:
        subject: the model.
        start: class, by number or name, whose first test image is the start. Where there is no such class, it is the
            first and the last there is; without classes, the first and the second image.
        end: the same of the end.
        steps: images decoded, the two reconstructions included.
    """
    ends = [subject.first_of(start), subject.first_of(end)]
    if None in ends or ends[0] == ends[1]:
        present = subject.labels.unique().tolist()
        ends = [subject.first_of(present[0]), subject.first_of(present[-1])] if len(present) > 1 else [0, 1]
    if len(subject.images) < 2:
        raise CannotDraw("there is one image")
    means = subject.codes[0]
    decoded = subject.decode(
        figures.straight_path(means[ends[0]], means[ends[1]], steps), subject.blended_labels(ends, steps)
    )
    originals = subject.pixels(ends).float().cpu()
    row = torch.cat([originals[:1], decoded, originals[1:]])
    top = ["original", *(f"{i / (steps - 1):.0%}" for i in range(steps)), "original"]
    names = [subject.name_of(int(image)) for image in ends if image is not None]
    title = f"from {names[0]} to {names[1]}, on a straight line between their latent means"
    return figures.labelled_grid(row, steps + 2, title, top)


def arithmetic(
    subject: Subject,
    factor: int | str | None = "thickness",
    classes: Sequence[int | str] = (4, 9),
    steps: Sequence[float] = (-2, -1, 0, 1, 2),
    count: int = 5,
) -> Picture:
    """Test images moved along one feature: a difference of mean codes, added to their codes in steps.

    Args:
        subject: the model.
        factor: name or number of one of the factors that the images were made from, where these are known: the
            difference is between the images above and those below its median.
        classes: two, by number or name: where there is no such factor, the difference is the second less the first.
        steps: how many times the difference is added.
        count: images, of the first class if it is classes.
    """
    means, labels = subject.codes[0], subject.labels
    number = subject.factor_names.index(factor) if factor in subject.factor_names else factor
    if subject.factors is not None and isinstance(number, int) and number < subject.factors.shape[1]:
        values = subject.factors[:, number]
        high, low = values > values.median(), values < values.median()
        shown = torch.arange(len(means))
        name = subject.factor_names[number] if subject.factor_names else f"factor {number}"
        feature = f"{name}: above the median less below"
    else:
        ends = [subject.first_of(wanted) for wanted in classes]
        if len(ends) != 2 or ends[0] is None or ends[1] is None:
            raise CannotDraw(f"there are neither images of the classes {list(classes)} nor a factor {factor}")
        low, high = labels == labels[ends[0]], labels == labels[ends[1]]
        shown = low.nonzero()[:, 0]
        feature = f"{subject.name_of(ends[1])} less {subject.name_of(ends[0])}"
    if not high.any() or not low.any():
        raise CannotDraw("all images are the same in it")
    shown = shown[:count]
    difference = means[high].mean(0) - means[low].mean(0)
    moved = means[shown, None] + torch.tensor(steps, dtype=means.dtype)[:, None] * difference  # (count, steps, D)
    kept = labels[shown].repeat_interleave(len(steps))
    decoded = subject.decode(moved.flatten(end_dim=1), kept).unflatten(0, moved.shape[:2])
    rows = torch.cat([subject.pixels(shown).float().cpu()[:, None], decoded], 1).flatten(end_dim=1)
    top = ["original", *(f"{step:+g}" if step else "0" for step in steps)]
    return figures.labelled_grid(rows, len(steps) + 1, f"difference of mean codes, added in steps\n{feature}", top)
