"""Samples and reconstructions, and the frames of an animation of the training."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import NotApplicable
from vaelab.runtime.validation import NonNegativeNumber, PositiveInt, Seed
from vaelab.visualization import plots
from vaelab.visualization.gallery.gallery_image import GalleryImage

_MOST_CLASSES = 100  # more do not fit into one image
_PAUSE = 20  # repetitions of the last frame of an animation
_MOST_ROUNDS = 50  # of sampling, until a class without enough samples is given up


def samples(
    model: TrainedModel, count: PositiveInt = 64, temperature: NonNegativeNumber = 1.0, scale: PositiveInt = 3
) -> GalleryImage:
    """Images decoded from samples of the prior; a conditional model uses its classes in turn.

    Args:
        model: the model.
        count: number of images; a square number makes a square.
        temperature: factor of the latents' distance from the centre of the prior; below 1 samples are more typical.
        scale: pixels on the screen per pixel of an image.
    """
    z, labels = model.vae.sample_latents(count, temperature), model.vae.classes_in_turn(count)
    decoded = model.decode(z, labels)
    columns = None if math.isqrt(count) ** 2 == count else 8
    arrays = {"pictures": decoded, "latents": z} | ({} if labels is None else {"labels": labels})
    return GalleryImage(plots.image_grid(decoded, columns, scale), arrays)


def reconstructions(
    model: TrainedModel,
    count: PositiveInt = 32,
    split: Literal["train", "val", "test"] = "test",
    scale: PositiveInt = 3,
) -> GalleryImage:
    """Images above their reconstructions.

    Args:
        model: the model.
        count: number of images from the start of the split, if the user chose none.
        split: of the images.
        scale: pixels on the screen per pixel of an image.
    """
    images, names = model.shown(count, split)
    codes = model.codes(images)
    originals, decoded = model.pixels(images.images).float().cpu(), model.decode(codes, images.labels)
    arrays = {"originals": originals, "pictures": decoded, "latents": codes, "labels": images.labels, "names": names}
    return GalleryImage(plots.reconstruction_grid(originals, decoded, scale=scale), arrays)


def class_reconstructions(model: TrainedModel, per_class: PositiveInt = 2, seed: Seed = 0) -> GalleryImage:
    """Random test images of each class beside their reconstructions; without classes, of all images.

    Args:
        model: the model.
        per_class: number of images.
        seed: of the random choice.
    """
    test, classes = model.test, model.classes
    per_class = min(per_class, len(test.images))
    order = torch.randperm(len(test.images), generator=torch.Generator().manual_seed(seed))
    shuffled = test.labels[order]
    groups = [order[shuffled == label] for label in range(min(len(classes), _MOST_CLASSES))]
    groups = [group[:per_class] for group in groups if len(group) >= per_class]
    rows = test.labels
    if len(groups) < 2:
        groups = [group for group in order[: 10 * per_class].split(per_class) if len(group) == per_class]
        rows = torch.zeros(len(test.images), dtype=torch.int64)
        for i, group in enumerate(groups):
            rows[group] = i
        classes = ("",) * len(groups)
    which = torch.cat(groups)
    chosen = test.part(which)
    codes = model.codes(chosen)
    originals, decoded = model.pixels(chosen.images).float().cpu(), model.decode(codes, chosen.labels)
    arrays = {"originals": originals, "pictures": decoded, "latents": codes, "labels": chosen.labels}
    return GalleryImage(plots.class_reconstructions(originals, decoded, rows[which], classes), arrays)


def class_samples(
    model: TrainedModel, per_class: PositiveInt = 10, temperature: NonNegativeNumber = 1.0
) -> GalleryImage:
    """Samples by class, a row for each.

    A conditional model decodes the same latents for every class. Another model samples until there are enough latents
    of each class. A linear discriminant, fitted to latents of training images, classifies them. So the rows are the
    classes of training images. The title shows the accuracy on the test images of these classes.

    Args:
        model: the model.
        per_class: number of images.
        temperature: factor of the latents' distance from the centre of the prior; below 1 samples are more typical.
    """
    if model.vae.classes is not None:
        shown = list(range(min(model.vae.classes, _MOST_CLASSES)))
        latents = model.vae.sample_latents(per_class, temperature).cpu()
        z = [latents for _ in shown]
        title = "samples of each class, with the same latents in every row"
    else:
        shown, classify, quality = _discriminant(model)
        z, title = [torch.empty(0, model.vae.latent_dim) for _ in shown], ""
        for _ in range(_MOST_ROUNDS):
            latents = model.vae.sample_latents(len(shown) * per_class, temperature).float().cpu()
            predicted = classify(latents)
            z = [torch.cat([row, latents[predicted == i]])[:per_class] for i, row in enumerate(z)]
            if min(map(len, z)) == per_class:
                break
        title = f"samples by class, which a linear discriminant predicts from their latents\n({quality})"
    counts = torch.tensor([len(row) for row in z])
    latents, labels = torch.cat(z), torch.tensor(shown).repeat_interleave(counts)
    decoded = model.decode(latents, labels)
    tiles = decoded.new_full((len(shown), per_class, *decoded.shape[1:]), plots.BACKGROUND / 255)
    for row, images in zip(tiles, decoded.split(counts.tolist()), strict=True):
        row[: len(images)] = images
    every = plots.drawable_classes(model.classes)
    names = [every[label] if len(row) else f"{every[label]}\n(no sample)" for label, row in zip(shown, z, strict=True)]
    image = plots.labelled_grid(tiles.flatten(end_dim=1), per_class, title, left=names)
    return GalleryImage(image, {"pictures": decoded, "latents": latents, "labels": labels})


def _discriminant(model: TrainedModel) -> tuple[list[int], Callable[[Tensor], Tensor], str]:
    """The classes of training images, a function from latents to indices of these, and its accuracy on test images."""
    train, test = model.images("train", model.limit), model.test
    name, present = model.datamodule.source.name, train.labels.unique()[:_MOST_CLASSES]
    if len(present) < 2:
        few = len(model.classes) < 2
        raise NotApplicable(f"{name} has no classes" if few else f"all training images of {name} are of one class")
    train = train.part(torch.isin(train.labels, present))
    if len(train.labels) < len(present) + model.vae.latent_dim:  # the covariance below would be singular
        raise NotApplicable(
            f"{len(train.labels)} training images are too few to predict {len(present)} classes from "
            f"{model.vae.latent_dim} latent dimensions"
        )
    # Fitted to posterior samples: codes hardly vary in unused dimensions, but samples of the prior do.
    z = model.sample_posterior(train).double()
    means = torch.stack([z[train.labels == label].mean(0) for label in present])
    spread = torch.atleast_2d((z - means[torch.searchsorted(present, train.labels)]).T.cov())
    weights = torch.linalg.solve(spread, means.T)  # (latent_dim, classes)

    def classify(z: Tensor) -> Tensor:
        return (z.double() @ weights - 0.5 * (means * weights.T).sum(1)).argmax(1)

    known = test.part(torch.isin(test.labels, present))
    if not len(known.labels):
        return present.tolist(), classify, "no test image is of these classes"
    accuracy = float((present[classify(model.sample_posterior(known))] == known.labels).float().mean())
    images = "test images"
    if len(known.labels) < len(test.labels):
        images = f"the {len(known.labels):,} test images of these classes"
    return present.tolist(), classify, f"accuracy on {images}: {accuracy:.0%}"


def timeline(model: TrainedModel, name: str = "samples", count: PositiveInt = 8) -> GalleryImage:
    """Frames of an animation of the training, from its start to its end.

    Args:
        model: the model of a run.
        name: of the animation, ``pictures/<name>.gif`` in the run folder.
        count: number of frames side by side.
    """
    folder = None if model.run is None else model.run.images
    frames: list[plots.RGBImage] = []
    if folder is not None:
        for path in sorted((folder / "frames" / name).glob("[0-9]*.png")):
            with Image.open(path, formats=["PNG"]) as frame:
                frames.append(np.asarray(frame.convert("RGB")))
        if not frames and (folder / f"{name}.gif").is_file():
            with Image.open(folder / f"{name}.gif", formats=["GIF"]) as animation:
                frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
    frames = [frame for frame in frames if frame.shape == frames[-1].shape]
    if not frames:
        raise NotApplicable(f"the run folder has neither {name}.gif nor its frames; train with callbacks=gallery")
    indices = np.unique(np.geomspace(1, len(frames), count).round().astype(int) - 1)  # images change most at the start
    gap = np.full((len(frames[0]), 4, 3), 255, np.uint8)
    strip = np.concatenate([part for i in indices for part in (gap, frames[i])][1:], 1)
    return GalleryImage(strip, {"frames": np.stack(frames), "shown": indices}, [*frames, *[frames[-1]] * _PAUSE])
