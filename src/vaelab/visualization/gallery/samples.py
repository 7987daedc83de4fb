"""Samples and reconstructions, and how they came to be in the training."""

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization import plots
from vaelab.visualization.gallery.gallery_image import GalleryImage

_MOST_CLASSES = 100  # more would not fit into a picture
_REST = 20  # frames at the end of an animation
_DRAWS = 50  # times as many samples as are shown of a class, until it is given up


def samples(model: TrainedModel, count: int = 64, temperature: float = 1.0, scale: int = 3) -> GalleryImage:
    """Images decoded from the prior; those of a conditional model are of the classes in turn.

    Args:
        model: the model.
        count: images; a square number of them makes a square.
        temperature: how far latents lie from the centre of the prior, less than one for what is more typical.
        scale: pixels on the screen per pixel of an image.
    """
    z, labels = model.vae.sample_latents(count, temperature), model.vae.classes_in_turn(count)
    decoded = model.decode(z, labels)
    columns = None if math.isqrt(count) ** 2 == count else 8
    arrays = {"pictures": decoded, "latents": z} | ({} if labels is None else {"labels": labels})
    return GalleryImage(plots.image_grid(decoded, columns, scale), arrays)


def reconstructions(model: TrainedModel, count: int = 32, split: str = "test", scale: int = 3) -> GalleryImage:
    """Images over their reconstructions.

    Args:
        model: the model.
        count: the first so many images, where none are chosen.
        split: whose.
        scale: pixels on the screen per pixel of an image.
    """
    images, names = model.shown(count, split)
    codes = model.codes(images)
    originals, decoded = model.pixels(images.images).float().cpu(), model.decode(codes, images.labels)
    arrays = {"originals": originals, "pictures": decoded, "latents": codes, "labels": images.labels, "names": names}
    return GalleryImage(plots.reconstruction_grid(originals, decoded, scale=scale), arrays)


def class_reconstructions(model: TrainedModel, per_class: int = 2, seed: int = 0) -> GalleryImage:
    """Random test images of each class beside their reconstructions; where there are no classes, of all.

    Args:
        model: the model.
        per_class: images.
        seed: of the choice.
    """
    test, classes = model.test, model.classes
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
    if not groups:
        raise NotApplicable(f"there are fewer than {per_class} images")
    which = torch.cat(groups)
    chosen = test.part(which)
    codes = model.codes(chosen)
    originals, decoded = model.pixels(chosen.images).float().cpu(), model.decode(codes, chosen.labels)
    arrays = {"originals": originals, "pictures": decoded, "latents": codes, "labels": chosen.labels}
    return GalleryImage(plots.class_reconstructions(originals, decoded, rows[which], classes), arrays)


def class_samples(model: TrainedModel, per_class: int = 10, temperature: float = 1.0) -> GalleryImage:
    """Samples by class, a row each.

    Those of a conditional model are decoded from the same latents for every class. One that is told no class draws
    until it has enough of each, as a linear discriminant, fitted to latents of
    training images, reads their latents; how often that is right of test images is said beside it.

    Args:
        model: the model.
        per_class: images.
        temperature: how far latents lie from the centre of the prior, less than one for what is more typical.
    """
    if model.vae.classes is not None:
        shown = list(range(min(model.vae.classes, _MOST_CLASSES)))
        draws = model.vae.sample_latents(per_class, temperature).cpu()
        z = [draws for _ in shown]
        title = "samples of each class, from the same latents in every row"
    else:
        shown, read, right = _discriminant(model)
        z, title = [torch.empty(0, model.vae.latent_dim) for _ in shown], ""
        for _ in range(_DRAWS):
            draws = model.vae.sample_latents(len(shown) * per_class, temperature).float().cpu()
            of = read(draws)
            z = [torch.cat([row, draws[of == i]])[:per_class] for i, row in enumerate(z)]
            if min(map(len, z)) == per_class:
                break
        title = f"samples by the class that their latents are read as,\nwhich is right of {right:.0%} of test images"
    counts = torch.tensor([len(row) for row in z])
    latents, labels = torch.cat(z), torch.tensor(shown).repeat_interleave(counts)
    decoded = model.decode(latents, labels)
    tiles = decoded.new_zeros(len(shown), per_class, *decoded.shape[1:])
    for row, images in zip(tiles, decoded.split(counts.tolist()), strict=True):
        row[: len(images)] = images
    names = [model.classes[label] for label in shown]
    picture = plots.labelled_grid(tiles.flatten(end_dim=1), per_class, title, left=names)
    return GalleryImage(picture, {"pictures": decoded, "latents": latents, "labels": labels})


def _discriminant(model: TrainedModel) -> tuple[list[int], Callable[[Tensor], Tensor], float]:
    """The classes there are, which of them latents are read as, and how often that is right of test images."""
    train, labels = model.images("train", model.limit), model.test.labels
    present = labels.unique()[:_MOST_CLASSES]
    if len(present) < 2:
        raise NotApplicable(f"{model.datamodule.source.name} has no classes")
    train = train.part(torch.isin(train.labels, present))
    # Drawn as the samples are: codes alone hardly move in dimensions that are not used, which samples do.
    z = model.sample_posterior(train).double()
    means = torch.stack([z[train.labels == label].mean(0) for label in present])
    spread = torch.atleast_2d((z - means[torch.searchsorted(present, train.labels)]).T.cov())
    weights = torch.linalg.solve(spread, means.T)  # (latent_dim, classes)

    def read(z: Tensor) -> Tensor:
        return (z.double() @ weights - 0.5 * (means * weights.T).sum(1)).argmax(1)

    right = (present[read(model.sample_posterior(model.test))] == labels).float().mean()
    return present.tolist(), read, float(right)


def timeline(model: TrainedModel, name: str = "samples", count: int = 8) -> GalleryImage:
    """The frames of an animation that the training has left, from its begin to its end.

    Args:
        model: the model, of a run.
        name: of the animation, ``pictures/<name>.gif`` in the run's folder.
        count: of frames beside each other.
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
        raise NotApplicable(f"the run has left no {name}.gif and no frames of one; train with callbacks=gallery")
    which = np.unique(np.geomspace(1, len(frames), count).round().astype(int) - 1)  # most happens in the beginning
    gap = np.full((len(frames[0]), 4, 3), 255, np.uint8)
    strip = np.concatenate([part for i in which for part in (gap, frames[i])][1:], 1)
    return GalleryImage(strip, {"frames": np.stack(frames), "shown": which}, [*frames, *[frames[-1]] * _REST])
