"""Pictures as files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vaelab.runtime.files import atomic_write
from vaelab.visualization.plots.style import RGBImage


def save_png(picture: RGBImage, path: Path) -> Path:
    """Writes a picture, whole or not at all, and returns its path."""
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, format="PNG")
    return path


def save_gif(pictures: Sequence[RGBImage], path: Path, frame_ms: int = 200, hold_ms: int = 2000) -> Path:
    """Writes pictures of one size as an animation without end, and returns its path.

    Args:
        pictures: the frames, at least one; equal neighbours become one longer frame.
        path: of the GIF, which is written whole or not at all.
        frame_ms: how long a frame is shown, milliseconds, in tens.
        hold_ms: the same of the last one.
    """
    # One palette for all, of all: colours that change from frame to frame would flicker.
    every = max(1, len(pictures) // 16)
    palette = Image.fromarray(np.concatenate(pictures[::-every])).quantize(256)
    frames = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [frame_ms] * (len(frames) - 1) + [hold_ms]
    with atomic_write(path) as file:
        frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return path
