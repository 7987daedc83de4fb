"""MNIST's files: real ones where they are, absent and damaged ones in one line."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, composed
from tests.files import write_mnist
from vaelab.data.mnist import MNIST
from vaelab.runtime.errors import UserError


def test_reads_idx_files_and_says_that_they_are_not_the_official_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    source = MNIST(tmp_path)
    source.prepare()
    images, labels, _, is_official = source.load(train=True)
    assert not is_official
    assert images.shape == (30, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.shape == (30,)
    assert "the training split of MNIST" in caplog.text


def _compressed(folder: Path) -> None:
    for path in list(folder.iterdir()):
        with gzip.open(f"{path}.gz", "wb") as file:
            file.write(path.read_bytes())
        path.unlink()


def _renamed(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("-idx", ".idx"))


def _in_folders(folder: Path) -> None:
    for path in list(folder.iterdir()):
        content = path.read_bytes()
        path.unlink()
        path.mkdir()
        (path / path.name).write_bytes(content)


@pytest.mark.parametrize("change", [lambda folder: None, _compressed, _renamed, _in_folders])
@pytest.mark.parametrize("place", [".", "raw", "MNIST", "MNIST/raw", "mnist", "mnist/raw"])
def test_files_near_their_usual_place_are_found_without_a_network(
    tmp_path: Path, place: str, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path / "in" / "MNIST" / "raw")
    expected = MNIST(tmp_path / "in").load(train=False)
    write_mnist(tmp_path / "data" / place)
    change(tmp_path / "data" / place)
    source = MNIST(tmp_path / "data")
    monkeypatch.setattr(source, "_dataset", None)
    source.prepare()
    found = source.load(train=False)
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.labels, expected.labels)


def test_files_that_do_not_tell_their_data_set_are_told_by_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path / "data")
    labels = (tmp_path / "data" / "train-labels-idx1-ubyte").read_bytes()[8:18]
    monkeypatch.setitem(MNIST.official, "MNIST", (list(labels), []))
    with pytest.raises(UserError, match="are those of MNIST: train with data=mnist"):
        MNIST(tmp_path / "data", "FashionMNIST").load(train=True)
    assert len(MNIST(tmp_path / "data").load(train=True).labels) == 30


DAMAGES: dict[str, Callable[[bytes, bytes], tuple[bytes, bytes]]] = {
    "truncated": lambda images, labels: (images[:-100], labels),
    "swapped": lambda images, labels: (labels, images),
    "empty": lambda images, labels: (b"", labels),
    "another format": lambda images, labels: (b"\x89PNG" + images[4:], labels),
    "another shape": lambda images, labels: (struct.pack(">IIII", 2051, 30 * 4, 14, 14) + images[16:], labels),
    "fewer labels": lambda images, labels: (images, struct.pack(">II", 2049, 20) + labels[8:28]),
    "labels of letters": lambda images, labels: (images, labels[:8] + bytes([25]) * 30),
    "no images at all": lambda images, labels: (struct.pack(">IIII", 2051, 0, 28, 28), struct.pack(">II", 2049, 0)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named_in_one_line(tmp_path: Path, damage: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw)
    files = [raw / "train-images-idx3-ubyte", raw / "train-labels-idx1-ubyte"]
    images, labels = DAMAGES[damage](*(file.read_bytes() for file in files))
    files[0].write_bytes(images)
    files[1].write_bytes(labels)
    with pytest.raises(UserError, match=r"training files of MNIST in .*: delete them to download them again") as caught:
        MNIST(tmp_path).load(train=True)
    assert str(raw) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_that_stops_halfway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def halfway(root: str, download: bool) -> None:
        write_mnist(Path(root) / "MNIST" / "raw")
        (Path(root) / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
        raise OSError("the connection was reset")

    source = MNIST(tmp_path)
    monkeypatch.setattr(source, "_dataset", halfway)
    with pytest.raises(UserError, match=r"could not be downloaded \(OSError: the connection was reset\)"):
        source.prepare()
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_put_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = MNIST(tmp_path)
    monkeypatch.setattr(source, "_dataset", lambda root, download: write_mnist(Path(root) / "MNIST" / "raw"))
    source.prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]
    assert len(MNIST(tmp_path).load(train=True).images) == 30


def test_absent_files_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("Error downloading it:\nTried this server, got:\nno network\nTried that one, got:\nnothing")

    source = MNIST(tmp_path)
    monkeypatch.setattr(source, "_dataset", fail)
    with pytest.raises(UserError, match="train-images-idx3-ubyte.*this server, got: no network\\).*data=digits"):
        source.prepare()


def test_the_real_one(mnist_dir: str) -> None:
    source = MNIST(mnist_dir)
    source.prepare()
    for train, count in ((True, 60_000), (False, 10_000)):
        images, _, _, is_official = source.load(train)
        assert images.shape == (count, 1, 28, 28)
        assert is_official


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist", "cifar10"])
def test_an_empty_variable_names_no_folder(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA_DIR", raising=False)
    default = composed("train", f"data={data}").data.source.data_dir
    assert Path(default) == ROOT / "data"
    monkeypatch.setenv("DATA_DIR", "")
    assert composed("train", f"data={data}").data.source.data_dir == default
    monkeypatch.setenv("DATA_DIR", "/elsewhere")
    assert composed("train", f"data={data}").data.source.data_dir == "/elsewhere"
