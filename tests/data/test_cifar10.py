"""CIFAR-10's files: both of its formats, absent and damaged ones in one line, hostile ones unread."""

import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from vaelab.data import cifar10
from vaelab.data.cifar10 import CIFAR10
from vaelab.runtime.errors import UserError

COUNT = 4
NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def _arrays(name: str) -> Arrays:
    generator = np.random.default_rng(NAMES.index(name))
    return (
        generator.integers(0, 256, (COUNT, 3072), dtype=np.uint8),
        generator.integers(0, 10, COUNT, dtype=np.uint8),
    )


def _python2_pickle(images: npt.NDArray[np.uint8], labels: list[int]) -> bytes:
    """A batch as the official files have it: strings are Python 2's, which Python 3 cannot write."""

    def string(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R(K\x03" + string(b"|") + b"NNN"
    dtype += number(-1) + number(-1) + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R"
    shape = number(images.shape[0]) + number(images.shape[1]) + b"\x86"
    array += b"(K\x01" + shape + dtype + b"I00\n" + string(images.tobytes()) + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(b"labels") + listed + b"u."


def _content(name: str, form: str) -> bytes:
    images, labels = _arrays(name)
    if form == "bin":
        return np.concatenate([labels[:, None], images], axis=1).tobytes()
    if form == "python2":
        return _python2_pickle(images, labels.tolist())
    return pickle.dumps({"data": images, "labels": labels.tolist()}, protocol=int(form))


def _write(data_dir: Path, form: str) -> Path:
    folder = data_dir / ("cifar-10-batches-bin" if form == "bin" else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / (f"{name}.bin" if form == "bin" else name)).write_bytes(_content(name, form))
    return folder


@pytest.mark.parametrize("form", ["bin", "python2", "2", "4", "5"])
def test_reads_both_versions_and_says_that_they_are_not_the_official_ones(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    _write(tmp_path, form)
    source = CIFAR10(tmp_path)
    source.prepare()
    for train, names in ((True, NAMES[:5]), (False, NAMES[5:])):
        images, labels, _, is_official = source.load(train)
        assert not is_official
        expected = [_arrays(name) for name in names]
        assert images.dtype == torch.uint8
        assert images.shape == (COUNT * len(names), 3, 32, 32)
        assert images.flatten(1).tolist() == np.concatenate([images for images, _ in expected]).tolist()
        assert labels.dtype == torch.int64
        assert labels.tolist() == np.concatenate([labels for _, labels in expected]).tolist()
    for split in ("training", "test"):
        assert f"the {split} split of CIFAR10 in {tmp_path}" in caplog.text
    assert "is not the official one" in caplog.text


def test_the_binary_version_is_preferred(tmp_path: Path) -> None:
    _write(tmp_path, "bin")
    for path in _write(tmp_path, "python2").iterdir():
        path.write_bytes(b"")
    assert CIFAR10(tmp_path).load(train=False).images.shape == (COUNT, 3, 32, 32)


class _Payload:
    def __init__(self, call: Any, arguments: tuple[Any, ...]) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("call", [os.mkdir, eval, np.save, np.fromfile])
def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path: Path, call: Any, protocol: int) -> None:
    folder = _write(tmp_path, "4")
    victim = tmp_path / "executed.npy"
    arguments = {eval: (f"__import__('os').mkdir({str(victim)!r})",), np.save: (str(victim), 0)}
    payload = _Payload(call, arguments.get(call, (str(victim),)))
    hostile = pickle.dumps({"data": payload, "labels": [0]}, protocol=protocol)
    (folder / "test_batch").write_bytes(hostile)
    with pytest.raises(UserError, match=r"test_batch is no file of CIFAR-10 .*it asks for .*refused"):
        CIFAR10(tmp_path).load(train=False)
    assert not victim.exists()
    if call is not np.fromfile:  # the payload would have worked
        pickle.loads(hostile)
        assert victim.exists()


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        ("bin", _content("test_batch", "bin")[:-1], "12291 bytes are no whole number of records of 3073"),
        ("bin", b"", "0 images"),
        ("bin", b"\x0a" * 3073, "labels go from 10 to 10"),
        ("2", _content("test_batch", "2")[:-100], "is no file of CIFAR-10"),
        ("2", b"", "EOFError"),
        ("2", b"<html>", "UnpicklingError"),
        ("2", pickle.dumps([1, 2]), "TypeError"),
        ("2", pickle.dumps({"data": [1], "labels": [1]}), "data is not an array"),
        ("2", pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]}, 4), "not of unsigned bytes"),
        ("2", pickle.dumps({"data": np.zeros((1, 784), np.uint8), "labels": [1]}), r"shape \(1, 784\)"),
        ("2", pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}), "2 images and 1 labels"),
        ("2", pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["cat"]}), "list of integers"),
        ("2", pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "fine_labels": [1]}), "KeyError: 'labels'"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path: Path, form: str, content: bytes, message: str) -> None:
    path = _write(tmp_path, form) / ("test_batch.bin" if form == "bin" else "test_batch")
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        CIFAR10(tmp_path).load(train=False)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named_and_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "download_and_extract_archive", lambda *_, **__: pytest.fail("downloads"))
    folder = _write(tmp_path, "python2")
    (folder / "data_batch_3").unlink()
    with pytest.raises(UserError, match="cifar-10-batches-py lacks data_batch_3: add what is missing, or delete"):
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
    written = _write(tmp_path / "elsewhere", "python2")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(written, arcname=written.name)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    if already_there:
        (data_dir / "cifar-10-python.tar.gz").write_bytes(packed.getvalue())

    def download(url: str, root: str, filename: str, md5: str) -> None:
        assert (Path(root) == data_dir) is already_there
        (Path(root) / filename).write_bytes(packed.getvalue())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    source = CIFAR10(data_dir)
    source.prepare()
    assert source.load(train=True).images.shape == (5 * COUNT, 3, 32, 32)
    assert {path.name for path in data_dir.iterdir()} - {"cifar-10-python.tar.gz"} == {"cifar-10-batches-py"}
