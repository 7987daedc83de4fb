"""MNIST's files: real ones where they are, absent and damaged ones in one line."""

from pathlib import Path

import pytest
import torch

from tests.files import write_mnist
from vaelab.data.mnist import MNIST
from vaelab.errors import UserError


def test_reads_idx_files_and_says_that_they_are_not_the_official_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    source = MNIST(tmp_path)
    source.prepare()
    images, labels, _ = source.load(train=True)
    assert images.shape == (30, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.shape == (30,)
    assert "not the official training split" in caplog.text


@pytest.mark.parametrize("damage", ["truncated", "swapped", "empty"])
def test_damaged_files_are_named_in_one_line(tmp_path: Path, damage: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw)
    images = raw / "train-images-idx3-ubyte"
    if damage == "truncated":
        images.write_bytes(images.read_bytes()[:-100])
    elif damage == "swapped":
        images.write_bytes((raw / "train-labels-idx1-ubyte").read_bytes())
    else:
        images.write_bytes(b"")
    with pytest.raises(UserError, match="training files of MNIST in .* cannot be read") as caught:
        MNIST(tmp_path).load(train=True)
    assert str(raw) in str(caught.value)


def test_absent_files_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("no network")

    source = MNIST(tmp_path)
    monkeypatch.setattr(source, "_dataset", fail)
    with pytest.raises(UserError, match="train-images-idx3-ubyte.*data=digits"):
        source.prepare()


def test_the_real_one(mnist_dir: str) -> None:
    source = MNIST(mnist_dir)
    source.prepare()
    for train, count in ((True, 60_000), (False, 10_000)):
        images, labels, _ = source.load(train)
        assert images.shape == (count, 1, 28, 28)
        assert source.is_official(labels, train)
