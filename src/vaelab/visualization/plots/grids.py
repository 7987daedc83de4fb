"""Grids of images."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vaelab.visualization.plots.latent_paths import manifold_latents
from vaelab.visualization.plots.style import DPI, RGBImage, new_figure, rendered, show_grid
from vaelab.visualization.plots.text import drawable_classes

BACKGROUND = 64  # grey of the gaps between images, and of missing images
_MARGIN = 260  # pixels around a grid for its labels; empty space is cropped afterwards
_PAD = 12


def at_most(images: Tensor, size: int) -> Tensor:
    """Images (N, C, H, W), shrunk if their longer side has more than ``size`` pixels."""
    height, width = images.shape[-2:]
    shrink = max(size, 1) / max(height, width)
    if shrink >= 1:
        return images
    return F.interpolate(images, (max(1, round(height * shrink)), max(1, round(width * shrink))), mode="area")


def to_bytes(images: Tensor) -> Tensor:
    """Images as bytes: floats are clamped to [0, 1], scaled to 255 and rounded."""
    return images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)


def image_grid(images: Tensor, columns: int | None = None, scale: int = 1, gap: int = 2) -> RGBImage:
    """Images side by side, row after row.

    Args:
        images: floats in [0, 1], shape (N, C, H, W). The first three channels are shown; of two, the first.
        columns: images in a row; by default about the number of rows.
        scale: pixels of the grid per pixel of an image.
        gap: pixels between images.
    """
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    pixels = to_bytes(images).cpu()
    pixels = pixels[:, :3] if channels >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    tiles = pixels.permute(0, 2, 3, 1).numpy().repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = height * scale, width * scale
    grid = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), BACKGROUND, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        grid[top : top + height, left : left + width] = tile
    return grid


def sprite_sheet(tiles: Tensor, columns: int) -> Image.Image:
    """Tiles side by side without gaps: one file for a page that cuts the tiles out of it.

    Args:
        tiles: uint8, shape (N, C, H, W). The first three channels are shown; of two, the first.
        columns: tiles in a row.
    """
    count, channels, height, width = tiles.shape
    tiles = tiles[:, :3] if channels >= 3 else tiles[:, :1]
    rows = math.ceil(count / columns)
    padded = F.pad(tiles, (0, 0, 0, 0, 0, 0, 0, rows * columns - count))
    sheet = padded.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, -1)
    return Image.fromarray((sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet).numpy())


def reconstruction_grid(originals: Tensor, reconstructions: Tensor, columns: int = 16, scale: int = 1) -> RGBImage:
    """Originals above their reconstructions, both (N, C, H, W), in pairs of rows with at most ``columns`` images."""
    pairs = math.ceil(len(originals) / columns)
    columns = math.ceil(len(originals) / pairs)  # rows of equal length: 13 and 12 images, not 16 and 9
    rows = []
    for start in range(0, len(originals), columns):
        for images in (originals, reconstructions):
            row = images[start : start + columns]
            rows.append(torch.cat([row, row.new_full((columns - len(row), *row.shape[1:]), BACKGROUND / 255)]))
    return image_grid(torch.cat(rows), columns, scale)


def labelled_grid(
    images: Tensor,
    columns: int,
    title: str,
    top: Sequence[str] = (),
    left: Sequence[str] = (),
    tile: int = 84,
    gap: int = 2,
) -> RGBImage:
    """A grid of images with a title, labels above its columns and labels at the left of its rows.

    Args:
        images: floats in [0, 1], shape (N, C, H, W); they are magnified by an integer.
        columns: images in a row.
        title: of the grid.
        top: a label for each column.
        left: a label for each row.
        tile: width of a magnified image in pixels, approximately.
        gap: pixels between images.
    """
    scale = max(1, round(tile / images.shape[-1]))
    grid = image_grid(images, columns, scale, gap)
    height, width = (size + 2 * _MARGIN for size in grid.shape[:2])
    with new_figure(width / DPI, height / DPI, layout=None) as figure:
        axes = figure.add_axes((_MARGIN / width, _MARGIN / height, grid.shape[1] / width, grid.shape[0] / height))
        show_grid(axes, grid)
        axes.set_xticks([(i + 0.5) * (images.shape[-1] * scale + gap) for i in range(len(top))], top)
        axes.set_yticks([(i + 0.5) * (images.shape[-2] * scale + gap) for i in range(len(left))], left)
        axes.set_title(title, pad=8)
        return _cropped(rendered(figure))


def class_reconstructions(
    originals: Tensor, reconstructions: Tensor, labels: Tensor, classes: Sequence[str]
) -> RGBImage:
    """Originals beside their reconstructions, both (N, C, H, W): a row per class, in blocks of ten rows.

    Args:
        originals: the same number for each class.
        reconstructions: of the originals.
        labels: (N,), classes from 0.
        classes: their names.
    """
    order = labels.argsort(stable=True)
    present = labels[order].unique_consecutive().tolist()
    per_class = len(labels) // len(present)
    pairs = torch.stack([originals[order], reconstructions[order]], 1).unflatten(0, (len(present), per_class))
    blocks = [pairs[start : start + 10].flatten(0, 2) for start in range(0, len(present), 10)]
    parts, shown = [], drawable_classes(classes)
    for i, block in enumerate(blocks):
        names = [shown[label] for label in present[10 * i : 10 * i + 10]]
        top = ["original", "recon-\nstruction"] * per_class
        parts.append(labelled_grid(block, 2 * per_class, "", top, names))
    height = max(part.shape[0] for part in parts)
    padded = [np.pad(part, ((0, height - len(part)), (0, 0), (0, 0)), constant_values=255) for part in parts]
    return np.concatenate(padded, axis=1)


def manifold_grid(images: Tensor, latent_dim: int, dims: Sequence[int]) -> RGBImage:
    """Images (N, C, H, W) decoded from :func:`manifold_latents`, with the values of the latents as labels."""
    count = len(images) if len(dims) == 1 else math.isqrt(len(images))
    labelled = np.linspace(0, count - 1, min(count, 6)).round()
    values = manifold_latents(count, 1, [0])[:, 0].tolist()
    ticks = [f"{value:.1f}" if i in labelled else "" for i, value in enumerate(values)]
    axes = " and ".join(f"$z_{{{dim + 1}}}$" for dim in dims)
    directions = "to the right" if len(dims) == 1 else "to the right and upwards"
    rest = f"; the other {latent_dim - len(dims)} dimensions are 0" if latent_dim > len(dims) else ""
    title = f"{axes} {directions}, at normal quantiles 0.05 to 0.95{rest}"
    left = ticks[::-1] if len(dims) == 2 else ()
    tile = max(28, (560 if left else 1120) // count)
    return labelled_grid(at_most(images, max(tile, 40)), count, title, ticks, left, tile, gap=0)


def captioned(image: RGBImage, text: str) -> RGBImage:
    """An image with a line of text above it."""
    font = ImageFont.load_default(14)
    strip = Image.new("RGB", (image.shape[1], 22), "white")
    ImageDraw.Draw(strip).text((4, 2), text, "black", font)
    return np.concatenate([np.asarray(strip), image])


def _cropped(image: RGBImage) -> RGBImage:
    rows, columns = (np.flatnonzero((image != 255).any(axis=(axis, 2))) for axis in (1, 0))
    top, left = max(rows[0] - _PAD, 0), max(columns[0] - _PAD, 0)
    return image[top : rows[-1] + 1 + _PAD, left : columns[-1] + 1 + _PAD]
