"""Pictures as functions of arrays: the same ones are drawn by callbacks, evaluation and generation.

Images come in as floats in [0, 1], shape (N, C, H, W), with one or three channels; a picture is a uint8 array
(height, width, 3).
"""

import math
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Picture = np.ndarray


def image_grid(images: Tensor, columns: int | None = None, scale: int = 1, gap: int = 2) -> Picture:
    """Images side by side, row after row.

    Args:
        images: floats in [0, 1], shape (N, C, H, W); of C channels the first three are shown, or the first of two.
        columns: images in a row; by default about as many as there are rows.
        scale: pixels of the picture per pixel of an image.
        gap: pixels between images.
    """
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    pixels = images.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels = pixels[:, :3] if channels >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    tiles = pixels.permute(0, 2, 3, 1).numpy().repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = height * scale, width * scale
    picture = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 64, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        picture[top : top + height, left : left + width] = tile
    return picture


def reconstruction_grid(originals: Tensor, reconstructions: Tensor, columns: int = 16, scale: int = 1) -> Picture:
    """Originals over their reconstructions, both (N, C, H, W), in pairs of rows."""
    columns = min(columns, len(originals))
    rows = []
    for start in range(0, len(originals), columns):
        for images in (originals, reconstructions):
            row = images[start : start + columns]
            rows.append(torch.cat([row, row.new_zeros(columns - len(row), *row.shape[1:])]))
    return image_grid(torch.cat(rows), columns, scale)


def save_png(picture: Picture, path: Path) -> Path:
    """Writes a picture, whole or not at all, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    Image.fromarray(picture).save(partial, format="PNG")
    os.replace(partial, path)
    return path
