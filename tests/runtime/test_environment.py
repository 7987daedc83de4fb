"""Environment variables, and the file that sets them."""

import codecs
import os
from pathlib import Path

import pytest

from vaelab.runtime import environment
from vaelab.runtime.errors import UserError


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_have_any_encoding_that_says_which_it_is(encoding: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# caf\u00e9\nexport DATA_DIR='/caf\u00e9'\n\nVAELAB_TEST=${DATA_DIR}/b # c\n", encoding
    )
    os.environ.pop("DATA_DIR", None)
    environment.load(tmp_path / ".env")
    assert (os.environ["DATA_DIR"], os.environ["VAELAB_TEST"]) == ("/caf\u00e9", "/caf\u00e9/b")


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ("A=1\nB=caf\u00e9\n".encode("latin-1"), "line 2 is no UTF-8 text"),
        (codecs.BOM_UTF16_LE + b"A\0=", "is no UTF-8 text"),
        ("A=1\n".encode("utf-16-le"), "is no text in UTF-8"),
        (b"A=1\nthe secret key\n", "line 2: type NAME=value there"),
        (b"A=1\n\nsecret\n", "line 3: type NAME=value there"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_without_its_secrets(contents: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(contents)
    with pytest.raises(UserError, match=said) as caught:
        environment.load(tmp_path / ".env")
    assert str(tmp_path / ".env") in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_permission_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / ".env").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        environment.load(tmp_path / ".env")


def test_a_folder_of_this_name_and_no_file_set_nothing(tmp_path: Path) -> None:
    before = dict(os.environ)
    environment.load(tmp_path / ".env")
    (tmp_path / ".env").mkdir()
    environment.load(tmp_path / ".env")
    assert dict(os.environ) == before


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WANDB_MODE=online\nWANDB_ENTITY=\n")
    empty = ("WANDB_MODE", "DATA_DIR", "MASTER_PORT", "SLURM_NTASKS", "LOCAL_RANK", "OMP_NUM_THREADS")
    os.environ.update(dict.fromkeys((*empty, "CUDA_VISIBLE_DEVICES"), ""))
    assert environment.variable("DATA_DIR") is None
    environment.load(tmp_path / ".env")
    assert os.environ["WANDB_MODE"] == "online"
    assert not {*empty[1:], "WANDB_ENTITY"} & set(os.environ)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # which means: no GPU
