"""Plots as PNG and GIF files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vaelab.runtime.files import atomic_write
from vaelab.visualization.plots.style import RGBImage


def save_png(image: RGBImage, path: Path) -> Path:
    """Writes an image, completely or not at all, and returns its path."""
    with atomic_write(path) as file:
        Image.fromarray(image).save(file, format="PNG")
    return path


def save_gif(images: Sequence[RGBImage], path: Path, frame_ms: int = 200, hold_ms: int = 2000) -> Path:
    """Writes images of one size as an endless animation, completely or not at all, and returns its path.

    Args:
        images: the frames, at least one; equal neighbours become one longer frame.
        path: of the GIF.
        frame_ms: duration of a frame, in milliseconds, a multiple of 10.
        hold_ms: duration of the last frame.
    """
    # All frames share one palette: colours would flicker if each frame had its own.
    every = max(1, len(images) // 16)
    palette = Image.fromarray(np.concatenate(images[::-every])).quantize(256)
    frames = [Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [frame_ms] * (len(frames) - 1) + [hold_ms]
    with atomic_write(path) as file:
        frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return path
