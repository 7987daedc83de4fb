"""Images decoded along lines and planes of latent space."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import NotApplicable
from vaelab.runtime.validation import AtLeastTwo, NonNegativeNumber, PositiveInt
from vaelab.visualization import plots
from vaelab.visualization.gallery.gallery_image import GalleryImage

_MOST_ROWS = 60
_TILE = 84  # approximate width in pixels of an image in an animation
_PAUSE = 6  # repetitions of the frames at both ends
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def _forth_and_back(images: Tensor) -> list[plots.RGBImage]:
    """Frames of an endless animation of images (rows, frames, C, H, W): each frame shows all rows side by side."""
    scale = max(1, round(_TILE / images.shape[-1]))
    frames = [plots.image_grid(each, scale=scale) for each in images.unbind(1)]
    return [*[frames[0]] * _PAUSE, *frames[1:-1], *[frames[-1]] * _PAUSE, *frames[-2:0:-1]]


def manifold(model: TrainedModel, count: PositiveInt = 20, any_size: bool = False) -> GalleryImage:
    """Images decoded from a plane of latent space, or from a line for a single dimension.

    Args:
        model: the model.
        count: number of images along a side.
        any_size: if there are more than two dimensions, use the two whose posterior means vary most.

    Raises:
        NotApplicable: there are more than two dimensions, and ``any_size`` is false.
    """
    latent_dim = model.vae.latent_dim
    dims = list(range(min(latent_dim, 2)))
    if latent_dim > 2:
        if not any_size:
            raise NotApplicable(
                f"latent_dim is {latent_dim}, not 2: type callbacks.gallery.pictures.manifold.any_size=true"
            )
        dims = model.codes_of_test[0].var(0, correction=0).argsort(descending=True)[:2].tolist()
    z = plots.manifold_latents(count, latent_dim, dims)
    decoded = model.decode(z, torch.zeros(len(z), dtype=torch.int64))  # a conditional model uses its first class
    return GalleryImage(plots.manifold_grid(decoded, latent_dim, dims), {"pictures": decoded, "latents": z})


def interpolation(
    model: TrainedModel,
    classes: Sequence[int | str] | None = None,
    count: PositiveInt = 8,
    steps: AtLeastTwo = 10,
    frames: AtLeastTwo | Literal[0] = 0,
) -> GalleryImage:
    """Interpolations: images decoded along straight lines between the latent codes of pairs of images.

    Args:
        model: the model.
        classes: two classes, by number or name; their first test images are the ends. If a class does not exist, the
            first and the last class are used; without classes, the first two images. ``None`` for pairs of the images
            that the user chose.
        count: number of pairs, if the user chose no images.
        steps: number of decoded images, including the two reconstructions.
        frames: number of frames from one end to the other, in an animation forth and back; 0 for no animation.
    """
    if len(model.splits["test"].images) < 2 and model.chosen is None:
        raise NotApplicable("there is one test image, and an interpolation needs two")
    if classes is None:
        images, names = model.shown(2 * min(count, len(model.splits["test"].images) // 2))
    else:
        found = [model.first_of(wanted) for wanted in classes]
        if len(found) != 2 or not (found[0] and found[1]) or found[0] == found[1]:
            present = model.splits["test"].labels.unique().tolist()
            found = [model.first_of(present[0]), model.first_of(present[-1])] if len(present) > 1 else [[0], [1]]
        images, names = model.numbered([found[0][0], found[1][0]])
    if len(names) % 2:
        raise NotApplicable(f"an interpolation needs pairs of images, and there are {len(names)}: choose one more")
    codes = model.codes(images)
    weights = None if model.vae.classes is None else F.one_hot(images.labels, model.vae.classes).float()

    def between(count: int) -> tuple[Tensor, Tensor]:
        """Latents (pairs, count, latent_dim) and the images decoded from them."""
        t = torch.linspace(0, 1, count)[:, None]
        z = torch.lerp(codes[::2, None], codes[1::2, None], t)
        y = None if weights is None else torch.lerp(weights[::2, None], weights[1::2, None], t).flatten(end_dim=1)
        return z, model.decode(z.flatten(end_dim=1), y).unflatten(0, z.shape[:2])

    z, decoded = between(steps)
    originals = model.pixels(images.images).float().cpu()
    tiles = torch.cat([originals[::2, None], decoded, originals[1::2, None]], 1)
    top = ["original", *(f"{i / (steps - 1):.0%}" for i in range(steps)), "original"]
    shown = list(map(plots.drawable, names))
    left = [f"{start} to\n{end}" for start, end in zip(shown[::2], shown[1::2], strict=True)]
    title = "straight lines between latent codes"
    if len(z) == 1:
        title, left = f"from {shown[0]} to {shown[1]}, on a straight line between their latent codes", []
    arrays = {"originals": originals, "pictures": decoded, "latents": z, "labels": images.labels, "names": names}
    image = plots.labelled_grid(tiles.flatten(end_dim=1), steps + 2, title, top, left)
    return GalleryImage(image, arrays, _forth_and_back(between(frames)[1]) if frames else ())


def traversal(
    model: TrainedModel,
    dimensions: PositiveInt = 10,
    reach: NonNegativeNumber = 2.0,
    steps: AtLeastTwo = 11,
    frames: AtLeastTwo | Literal[0] = 0,
) -> GalleryImage:
    """Latent traversals: in each row one latent dimension changes and the others are constant.

    The other dimensions are those of the code of each image that the user chose. Without such images they are those of
    the centre of the prior.

    Args:
        model: the model.
        dimensions: number of rows: the dimensions whose codes vary most over test images.
        reach: the largest distance from the mean code, in standard deviations of the codes of test images.
        steps: number of images in a row.
        frames: number of frames from one side to the other, in an animation forth and back; 0 for no animation.
    """
    codes = model.codes_of_test[0]
    if len(codes) < 2:
        raise NotApplicable("there is one test image, and a traversal goes as far as the codes of test images vary")
    mean, deviation = codes.mean(0), codes.std(0)
    dims = deviation.argsort(descending=True)[:dimensions]
    if model.chosen is not None:
        (images, names), start = model.chosen, "its code"
        starts, labels = model.codes(images), images.labels
    else:
        names, labels = [""], torch.zeros(1, dtype=torch.int64)  # a conditional model uses its first class
        try:
            starts, start = model.vae.p_z().centre.float().cpu()[None], "the centre of the prior"
        except NotImplementedError:
            starts, start = mean[None], "the mean code of the test images (this prior has no centre)"
        if model.vae.classes is not None:
            start += f", as class {plots.drawable_classes(model.classes)[0]}"
    if len(starts) * len(dims) > _MOST_ROWS:
        raise NotApplicable(f"{len(starts)} images and {len(dims)} dimensions make more than {_MOST_ROWS} rows")

    def traverse(count: int) -> tuple[Tensor, Tensor]:
        """Latents (images * dimensions, count, latent_dim) and the images decoded from them."""
        offsets = torch.linspace(-reach, reach, count)
        z = starts[:, None, None].repeat(1, len(dims), count, 1)
        for row, dim in enumerate(dims.tolist()):
            z[:, row, :, dim] = mean[dim] + offsets * deviation[dim]
        z = z.flatten(end_dim=1)
        y = labels.repeat_interleave(len(dims) * count)
        return z, model.decode(z.flatten(end_dim=1), y).unflatten(0, z.shape[:2])

    z, decoded = traverse(steps)
    shown = list(map(plots.drawable, names))
    # No mathematics beside names: Matplotlib looks for their characters in other fonts only outside of it.
    left = [f"{name} z{str(dim + 1).translate(_SUBSCRIPTS)}".strip() for name in shown for dim in dims.tolist()]
    top = [f"{offset:+.2g}" if abs(offset) > 1e-6 else "0" for offset in torch.linspace(-reach, reach, steps).tolist()]
    title = (
        f"latent traversals of the {len(dims)} of {len(mean)} dimensions that vary most, from {start}\n"
        "columns: standard deviations from the mean of the test images' codes"
    )
    image = plots.labelled_grid(decoded.flatten(end_dim=1), steps, title, top, left)
    arrays = {"pictures": decoded, "latents": z, "dimensions": dims.repeat(len(starts)), "labels": labels}
    return GalleryImage(image, arrays, _forth_and_back(traverse(frames)[1]) if frames else ())


def arithmetic(
    model: TrainedModel,
    factor: int | str | None = "thickness",
    classes: Sequence[int | str] = (4, 9),
    times: Sequence[float] = (-2, -1, 0, 1, 2),
    count: PositiveInt = 5,
) -> GalleryImage:
    """Latent arithmetic: multiples of a difference of mean codes are added to the codes of images.

    Args:
        model: the model.
        factor: name or number of a generating factor, if these are known. The difference is the mean code of the
            images above its median minus that of the images below.
        classes: two classes, by number or name. Without the factor, the difference is the second minus the first.
        times: multiples of the difference.
        count: number of images, if the user chose none. With a difference of classes they are of the first class.
    """
    test, means = model.test, model.codes_of_test[0]
    number = model.factor_names.index(factor) if factor in model.factor_names else factor
    numbers = list(range(min(count, len(model.splits["test"].images))))
    if test.factors is not None and isinstance(number, int) and number < test.factors.shape[1]:
        values = test.factors[:, number]
        middle = values.quantile(0.5)  # torch's median of an even number is one of the values
        high, low = values > middle, values < middle
        name = plots.drawable(model.factor_names[number]) if model.factor_names else f"factor {number}"
        feature = f"{name}: above the median minus below"
        empty = f"all {len(test.labels)} test images have the same {name}"
    else:
        ends = [model.label_of(wanted) for wanted in classes]
        if len(ends) != 2 or ends[0] is None or ends[1] is None:
            raise NotApplicable(f"there are neither images of the classes {list(classes)} nor a factor {factor}")
        low, high = test.labels == ends[0], test.labels == ends[1]
        numbers = model.first_of(ends[0], count)
        shown = plots.drawable_classes(model.classes)
        feature = f"{shown[ends[1]]} minus {shown[ends[0]]}"
        empty = f"one of the classes {list(classes)} has no image among the {len(test.labels)} test images of this plot"
    if not high.any() or not low.any():
        raise NotApplicable(empty)
    images, names = model.chosen or model.numbered(numbers)
    difference = means[high].mean(0) - means[low].mean(0)
    z = model.codes(images)[:, None] + torch.tensor(times, dtype=means.dtype)[:, None] * difference
    decoded = model.decode(z.flatten(end_dim=1), images.labels.repeat_interleave(len(times)))
    decoded = decoded.unflatten(0, z.shape[:2])
    originals = model.pixels(images.images).float().cpu()
    tiles = torch.cat([originals[:, None], decoded], 1).flatten(end_dim=1)
    top = ["original", *(f"{step:+g}" if step else "0" for step in times)]
    title = f"multiples of a difference of mean codes are added\n{feature}"
    arrays = {"originals": originals, "pictures": decoded, "latents": z, "labels": images.labels, "names": names}
    image = plots.labelled_grid(tiles, len(times) + 1, title, top, list(map(plots.drawable, names)))
    return GalleryImage(image, arrays | {"difference": difference})
