"""CIFAR-10's binary version: read, downloaded, and absent or damaged in one line."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.files import write_cifar10
from vaelab.data import cifar10
from vaelab.data.cifar10 import CIFAR10
from vaelab.runtime.errors import UserError

COUNT = 4
NAMES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def _write(data_dir: Path) -> Path:
    folder = data_dir / "cifar-10-batches-bin"
    write_cifar10(folder, COUNT)
    return folder


def test_reads_the_files_in_order_and_says_that_they_are_not_the_official_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _write(tmp_path)
    source = CIFAR10(tmp_path)
    source.prepare()
    for train, names in ((True, NAMES[:5]), (False, NAMES[5:])):
        images, labels, _, is_official = source.load(train)
        assert not is_official
        content = b"".join((folder / name).read_bytes() for name in names)
        assert images.dtype == torch.uint8
        assert images.shape == (COUNT * len(names), 3, 32, 32)
        assert labels.dtype == torch.int64
        records = [bytes([label]) + image.numpy().tobytes() for image, label in zip(images, labels, strict=True)]
        assert b"".join(records) == content
    for split in ("training", "test"):
        assert f"the {split} split of CIFAR10 in {tmp_path}" in caplog.text
    assert "is not the official one" in caplog.text


def test_the_planes_are_red_green_and_blue(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    pixels = np.concatenate([np.full(1024, value, np.uint8) for value in (10, 20, 30)])
    (folder / "test_batch.bin").write_bytes(bytes([7]) + pixels.tobytes())
    images, labels, _, _ = CIFAR10(tmp_path).load(train=False)
    assert labels.tolist() == [7]
    assert images[0].flatten(1).unique(dim=1).squeeze(1).tolist() == [10, 20, 30]


def test_the_official_files_are_recognized(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    for name in NAMES:
        labels = {"data_batch_1.bin": CIFAR10.official[0], "test_batch.bin": CIFAR10.official[1]}.get(name, [])
        (folder / name).write_bytes(b"".join(bytes([label]) + bytes(3072) for label in labels))
        os.truncate(folder / name, 10_000 * 3073)  # zeros, which take no room
    source = CIFAR10(tmp_path)
    assert source.load(train=True).is_official
    assert source.load(train=False).is_official


def test_whoever_has_the_python_version_is_given_the_command_for_the_binary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10, "download_and_extract_archive", lambda *_, **__: pytest.fail("downloads"))
    (tmp_path / "cifar-10-batches-py").mkdir()
    source = CIFAR10(tmp_path)
    for read in (source.prepare, lambda: source.load(train=True)):
        with pytest.raises(
            UserError, match=r"Python version.*type curl -L .*cifar-10-binary.tar.gz \| tar -xz"
        ) as caught:
            read()
        assert "\n" not in str(caught.value)
    _write(tmp_path)
    assert len(source.load(train=True).images) == 5 * COUNT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(3072), "3072 bytes are not a whole number of records of 3073"),
        (b"", "0 bytes"),
        (b"\x0a" * 3073, "labels go up to 10"),
        (b"<html>", "6 bytes"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = _write(tmp_path) / "test_batch.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        CIFAR10(tmp_path).load(train=False)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named_and_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "download_and_extract_archive", lambda *_, **__: pytest.fail("downloads"))
    (_write(tmp_path) / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match="cifar-10-batches-bin lacks data_batch_3.bin: add what is missing, or delete"):
        CIFAR10(tmp_path).prepare()


def test_absent_files_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(cifar10, "download_and_extract_archive", fail)
    source = CIFAR10(tmp_path / "new")
    with pytest.raises(UserError, match="OSError: no network.*DATA_DIR.*data=digits"):
        source.prepare()
    with pytest.raises(UserError, match="CIFAR10 is not in .*data=digits"):
        source.load(train=True)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("already_there", [False, True])
def test_the_archive_is_unpacked_into_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, already_there: bool
) -> None:
    """By torchvision's own helper, which takes an archive whose md5 is right instead of downloading one."""
    written = _write(tmp_path / "elsewhere")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(written, arcname=written.name)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    if already_there:
        (data_dir / "cifar-10-binary.tar.gz").write_bytes(packed.getvalue())

    def download(url: str, root: str, filename: str, md5: str) -> None:
        assert url.endswith(filename)
        assert md5 == "c32a1d4ab5d03f1284b67883e8d87530"
        assert (Path(root) == data_dir) is already_there
        (Path(root) / filename).write_bytes(packed.getvalue())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    source = CIFAR10(data_dir)
    source.prepare()
    assert source.load(train=True).images.shape == (5 * COUNT, 3, 32, 32)
    assert {path.name for path in data_dir.iterdir()} - {"cifar-10-binary.tar.gz"} == {"cifar-10-batches-bin"}


@pytest.mark.parametrize("place", [".", "cifar10", "CIFAR-10", "cifar10/cifar-10-batches-bin"])
def test_files_near_their_usual_place_are_found_without_a_network(tmp_path: Path, place: str) -> None:
    write_cifar10(tmp_path / "data" / place)
    source = CIFAR10(tmp_path / "data")
    source.prepare()
    assert len(source.load(train=True).labels) == 150
