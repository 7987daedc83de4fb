"""Ways through latent space, and what is met on them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization import plots
from vaelab.visualization.gallery.gallery_image import GalleryImage

_MOST_ROWS = 60
_TILE = 84  # about as many pixels wide is an image of an animation
_REST = 6  # frames at either end


def _text(name: str) -> str:
    """A name that Matplotlib does not read as mathematics."""
    return name.replace("$", r"\$")


def _there_and_back(images: Tensor) -> list[plots.RGBImage]:
    """The frames of rows of images, (rows, frames, C, H, W): all rows side by side in each of them."""
    scale = max(1, round(_TILE / images.shape[-1]))
    frames = [plots.image_grid(each, scale=scale) for each in images.unbind(1)]
    return [*[frames[0]] * _REST, *frames[1:-1], *[frames[-1]] * _REST, *frames[-2:0:-1]]


def manifold(model: TrainedModel, count: int = 20, any_size: bool = False) -> GalleryImage:
    """Images decoded from a plane of latent space; one row for a single dimension.

    Args:
        model: the model.
        count: images to a side.
        any_size: of more than two dimensions, take the two whose posterior means vary most; else they have no such
            picture.
    """
    latent_dim = model.vae.latent_dim
    dims = list(range(min(latent_dim, 2)))
    if latent_dim > 2:
        if not any_size:
            raise NotApplicable(f"latent_dim is {latent_dim}, not 2; callbacks.gallery.pictures.manifold.any_size=true")
        dims = model.codes_of_test[0].var(0).argsort(descending=True)[:2].tolist()
    z = plots.manifold_latents(count, latent_dim, dims)
    decoded = model.decode(z, torch.zeros(len(z), dtype=torch.int64))  # of a conditional model's first class
    return GalleryImage(plots.manifold(decoded, latent_dim, dims), {"pictures": decoded, "latents": z})


def interpolation(
    model: TrainedModel, classes: Sequence[int | str] | None = None, count: int = 8, steps: int = 10, frames: int = 0
) -> GalleryImage:
    """Images decoded along straight lines between the latent codes of two images each, between these.

    Args:
        model: the model.
        classes: two, by number or name, whose first test images are the ends. Where there is no such class, these are
            the first and the last there is; without classes, the first and the second image. ``None`` for the images
            that are chosen, two and two.
        count: of pairs, where no images are chosen.
        steps: images decoded, the two reconstructions included.
        frames: the same of an animation that goes there and back; 0 for none.
    """
    if classes is None:
        images, names = model.shown(2 * count)
    else:
        found = [model.first_of(wanted) for wanted in classes]
        if len(found) != 2 or not (found[0] and found[1]) or found[0] == found[1]:
            present = model.splits["test"].labels.unique().tolist()
            found = [model.first_of(present[0]), model.first_of(present[-1])] if len(present) > 1 else [[0], [1]]
        if len(model.splits["test"].images) < 2:
            raise NotApplicable("there is one image")
        images, names = model.numbered([found[0][0], found[1][0]])
    if len(names) % 2 or len(names) < 2:
        raise NotApplicable(f"an interpolation is between two images, and there are {len(names)}: type images=[3,17]")
    codes = model.codes(images)
    weights = None if model.vae.classes is None else F.one_hot(images.labels, model.vae.classes).float()

    def between(count: int) -> tuple[Tensor, Tensor]:
        """Latents (pairs, count, latent_dim) and what is decoded of them."""
        way = torch.linspace(0, 1, count)[:, None]
        z = torch.lerp(codes[::2, None], codes[1::2, None], way)
        y = None if weights is None else torch.lerp(weights[::2, None], weights[1::2, None], way).flatten(end_dim=1)
        return z, model.decode(z.flatten(end_dim=1), y).unflatten(0, z.shape[:2])

    z, decoded = between(steps)
    originals = model.pixels(images.images).float().cpu()
    tiles = torch.cat([originals[::2, None], decoded, originals[1::2, None]], 1)
    top = ["original", *(f"{i / (steps - 1):.0%}" for i in range(steps)), "original"]
    ways = [f"{start} to\n{end}" for start, end in zip(names[::2], names[1::2], strict=True)]
    title = "straight lines between latent codes"
    if len(z) == 1:
        title, ways = f"from {names[0]} to {names[1]}, on a straight line between their latent codes", []
    arrays = {"originals": originals, "pictures": decoded, "latents": z, "labels": images.labels, "names": names}
    picture = plots.labelled_grid(tiles.flatten(end_dim=1), steps + 2, _text(title), top, list(map(_text, ways)))
    return GalleryImage(picture, arrays, _there_and_back(between(frames)[1]) if frames else ())


def traversal(
    model: TrainedModel, dimensions: int = 10, reach: float = 2.0, steps: int = 11, frames: int = 0
) -> GalleryImage:
    """Images decoded while one latent dimension moves and the others stay, a row for each of those that vary most.

    Of the images that are chosen, each at its own code; where none is, at the centre of the prior.

    Args:
        model: the model.
        dimensions: as many of those whose codes vary most over test images.
        reach: how far they move to either side of the mean code, in standard deviations of the codes of test images.
        steps: images in a row.
        frames: from one side to the other, of an animation that goes there and back; 0 for none.
    """
    codes = model.codes_of_test[0]
    mean, deviation = codes.mean(0), codes.std(0)
    dims = deviation.argsort(descending=True)[:dimensions]
    if model.chosen is not None:
        (images, names), where = model.chosen, "its code"
        starts, labels = model.codes(images), images.labels
    else:
        names, labels = [""], torch.zeros(1, dtype=torch.int64)  # what a conditional model is shown for
        try:
            starts, where = model.vae.p_z().centre.float().cpu()[None], "the centre of the prior"
        except NotImplementedError:
            starts, where = mean[None], "the mean code of the test images, for the prior has no centre"
        if model.vae.classes is not None:
            where += f", as class {model.classes[0]}"
    if len(starts) * len(dims) > _MOST_ROWS:
        raise NotApplicable(f"{len(starts)} images and {len(dims)} dimensions make more than {_MOST_ROWS} rows")

    def moved(count: int) -> tuple[Tensor, Tensor]:
        """Latents (images * dimensions, count, latent_dim) and what is decoded of them."""
        offsets = torch.linspace(-reach, reach, count)
        z = starts[:, None, None].repeat(1, len(dims), count, 1)
        for row, dim in enumerate(dims.tolist()):
            z[:, row, :, dim] = mean[dim] + offsets * deviation[dim]
        z = z.flatten(end_dim=1)
        y = labels.repeat_interleave(len(dims) * count)
        return z, model.decode(z.flatten(end_dim=1), y).unflatten(0, z.shape[:2])

    z, decoded = moved(steps)
    left = [f"{_text(name)} $z_{{{dim + 1}}}$".strip() for name in names for dim in dims.tolist()]
    top = [f"{offset:+.2g}" if abs(offset) > 1e-6 else "0" for offset in torch.linspace(-reach, reach, steps).tolist()]
    title = (
        f"the {len(dims)} of {len(mean)} latent dimensions that vary most, each moved from {where}:\n"
        "so many standard deviations of the test images' codes from their mean"
    )
    picture = plots.labelled_grid(decoded.flatten(end_dim=1), steps, title, top, left)
    arrays = {"pictures": decoded, "latents": z, "dimensions": dims.repeat(len(starts)), "labels": labels}
    return GalleryImage(picture, arrays, _there_and_back(moved(frames)[1]) if frames else ())


def arithmetic(
    model: TrainedModel,
    factor: int | str | None = "thickness",
    classes: Sequence[int | str] = (4, 9),
    times: Sequence[float] = (-2, -1, 0, 1, 2),
    count: int = 5,
) -> GalleryImage:
    """Images moved along one feature: a difference of mean codes of test images, added to their codes in steps.

    Args:
        model: the model.
        factor: name or number of one of the factors that the images were made from, where these are known: the
            difference is between the images above and those below its median.
        classes: two, by number or name: where there is no such factor, the difference is the second less the first.
        times: how often the difference is added.
        count: of images, where none are chosen; of the first class if it is classes.
    """
    test, means = model.test, model.codes_of_test[0]
    number = model.factor_names.index(factor) if factor in model.factor_names else factor
    numbers = list(range(min(count, len(model.splits["test"].images))))
    if test.factors is not None and isinstance(number, int) and number < test.factors.shape[1]:
        values = test.factors[:, number]
        high, low = values > values.median(), values < values.median()
        name = model.factor_names[number] if model.factor_names else f"factor {number}"
        feature = f"{name}: above the median less below"
    else:
        ends = [model.label_of(wanted) for wanted in classes]
        if len(ends) != 2 or ends[0] is None or ends[1] is None:
            raise NotApplicable(f"there are neither images of the classes {list(classes)} nor a factor {factor}")
        low, high = test.labels == ends[0], test.labels == ends[1]
        numbers = model.first_of(ends[0], count)
        feature = f"{model.classes[ends[1]]} less {model.classes[ends[0]]}"
    if not high.any() or not low.any():
        raise NotApplicable("all images are the same in it")
    images, names = model.chosen or model.numbered(numbers)
    difference = means[high].mean(0) - means[low].mean(0)
    z = model.codes(images)[:, None] + torch.tensor(times, dtype=means.dtype)[:, None] * difference
    decoded = model.decode(z.flatten(end_dim=1), images.labels.repeat_interleave(len(times)))
    decoded = decoded.unflatten(0, z.shape[:2])
    originals = model.pixels(images.images).float().cpu()
    tiles = torch.cat([originals[:, None], decoded], 1).flatten(end_dim=1)
    top = ["original", *(f"{step:+g}" if step else "0" for step in times)]
    title = f"difference of mean codes, added in steps\n{feature}"
    arrays = {"originals": originals, "pictures": decoded, "latents": z, "labels": images.labels, "names": names}
    picture = plots.labelled_grid(tiles, len(times) + 1, _text(title), top, list(map(_text, names)))
    return GalleryImage(picture, arrays | {"difference": difference})
