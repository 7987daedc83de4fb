"""Small files in the data sets' own formats."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image


def write_mnist(folder: Path, count: int = 30) -> None:
    """Both splits of MNIST, noise of 28x28 pixels."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = generator.integers(0, 10, count, dtype=np.uint8)
        header = struct.pack(">IIII", 2051, count, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())


def write_cifar10(folder: Path, count: int = 30) -> None:
    """The six files of CIFAR-10's binary version, so many images each."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = generator.integers(0, 256, (count, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def write_pictures(folder: Path, count: int = 30) -> None:
    """Colour pictures of several sizes."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        height, width = generator.integers(40, 90, 2)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
