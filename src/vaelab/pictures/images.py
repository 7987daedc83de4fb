"""Samples and reconstructions."""

import math

import torch

from vaelab import figures
from vaelab.pictures.drawn import CannotDraw, Drawn
from vaelab.subject import Subject

_MOST_CLASSES = 100  # more would not fit into a picture


def samples(subject: Subject, count: int = 64, temperature: float = 1.0, scale: int = 3) -> Drawn:
    """Images decoded from the prior; those of a conditional model are of the classes in turn.

    Args:
        subject: the model.
        count: images; a square number of them makes a square.
        temperature: how far latents lie from the centre of the prior, less than one for what is more typical.
        scale: pixels on the screen per pixel of an image.
    """
    z, labels = subject.vae.draw(count, temperature), subject.vae.classes_in_turn(count)
    decoded = subject.decode(z, labels)
    columns = None if math.isqrt(count) ** 2 == count else 8
    arrays = {"pictures": decoded, "latents": z} | ({} if labels is None else {"labels": labels})
    return Drawn(figures.image_grid(decoded, columns, scale), arrays)


def reconstructions(subject: Subject, count: int = 32, split: str = "test", scale: int = 3) -> Drawn:
    """Images over their reconstructions.

    Args:
        subject: the model.
        count: the first so many images, where none are chosen.
        split: whose.
        scale: pixels on the screen per pixel of an image.
    """
    images, names = subject.shown(count, split)
    codes = subject.codes(images)
    originals, decoded = subject.pixels(images.images).float().cpu(), subject.decode(codes, images.labels)
    arrays = {"originals": originals, "pictures": decoded, "latents": codes, "labels": images.labels, "names": names}
    return Drawn(figures.reconstruction_grid(originals, decoded, scale=scale), arrays)


def class_reconstructions(subject: Subject, per_class: int = 2, seed: int = 0) -> Drawn:
    """Random test images of each class beside their reconstructions; where there are no classes, of all.

    Args:
        subject: the model.
        per_class: images.
        seed: of the choice.
    """
    test, classes = subject.test, subject.classes
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
        raise CannotDraw(f"there are fewer than {per_class} images")
    which = torch.cat(groups)
    chosen = test.part(which)
    codes = subject.codes(chosen)
    originals, decoded = subject.pixels(chosen.images).float().cpu(), subject.decode(codes, chosen.labels)
    arrays = {"originals": originals, "pictures": decoded, "latents": codes, "labels": chosen.labels}
    return Drawn(figures.class_reconstructions(originals, decoded, rows[which], classes), arrays)
