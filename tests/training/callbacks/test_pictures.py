"""The two pictures that are drawn while training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import composed
from vaelab.commands.train import train


@pytest.mark.parametrize(("count", "rows", "columns"), [(25, 5, 5), (64, 8, 8), (32, 4, 8), (6, 1, 8)])
def test_samples_are_tiled(tmp_path: Path, tiny_data: list[str], count: int, rows: int, columns: int) -> None:
    options = ["callbacks.gallery=null", f"callbacks.pictures.count={count}", "trainer.max_epochs=1"]
    train(composed("train", f"run_dir={tmp_path}", *tiny_data, *options))
    picture = np.asarray(Image.open(tmp_path / "pictures" / "samples.png"))
    assert picture.shape == (rows * 86 + 2, columns * 86 + 2, 3)


def test_pictures_are_drawn_while_training_too(tmp_path: Path, tiny_data: list[str]) -> None:
    options = ["callbacks.gallery=null", "callbacks.pictures.every_n_epochs=1", "trainer.max_epochs=1"]
    train(composed("train", f"run_dir={tmp_path}", *tiny_data, *options, "logger=tensorboard"))
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    for name in (b"val/samples", b"val/reconstructions", b"test/samples", b"test/reconstructions"):
        assert name in events
