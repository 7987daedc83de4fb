"""Folders of small pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vaelab.data.image_folder import ImageFolder
from vaelab.data.source import Images


def save(path: Path, colour: Any = (0, 0, 0), size: tuple[int, int] = (9, 7), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def fill(folder: Path, count: int, start: int = 0) -> None:
    """Images that tell their number by their colour."""
    for i in range(start, start + count):
        save(folder / f"{i:03}.png", (i, i, i))


def folder_of(tmp_path: Path, **options: Any) -> ImageFolder:
    return ImageFolder(
        **{"folder": tmp_path / "in", "image_shape": [3, 4, 4], "cache_dir": tmp_path / "out", **options}
    )


def numbers(images: Images) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def only_image(tmp_path: Path, **options: Any) -> torch.Tensor:
    """The one image in the folder, with another one to test with."""
    (tmp_path / "in" / "train").mkdir(exist_ok=True)
    save(tmp_path / "in" / "test" / "other.png")
    return folder_of(tmp_path, **options).load(train=True).images[0]


def spoil(path: Path, how: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "truncated":
        content = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(content, "png")
        path.write_bytes(content.getvalue()[:900])
    elif how == "html":
        path.write_text("<html>not found</html>")
    elif how == "unknown to Pillow":  # the first directory of a TIFF file has no entries
        path.write_bytes(b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "float":
        Image.new("F", (5, 5), 0.5).save(path, "tiff")
    elif how == "32-bit":
        Image.new("I", (5, 5), 70_000).save(path, "tiff")
    else:
        path.symlink_to(path.with_name("nowhere.png"))
