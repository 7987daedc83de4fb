"""A checkpoint is whole or not there."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from vaelab.runtime.errors import UserError
from vaelab.training.callbacks.checkpoints import AtomicCheckpointIO


def test_what_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    files = AtomicCheckpointIO()
    files.save_checkpoint({"step": 1}, path)

    for failure in (OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file")):

        def half(checkpoint: Any, file: io.BufferedWriter, failure: Exception = failure) -> None:
            file.write(b"half of a checkpoint")
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", half)
            with pytest.raises(UserError, match="could not be written .*the previous checkpoint is intact"):
                files.save_checkpoint({"step": 2}, path)
        assert files.load_checkpoint(path) == {"step": 1}
        assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
    files.save_checkpoint({"step": 3}, path)
    assert files.load_checkpoint(path) == {"step": 3}


def test_nothing_but_plain_values_is_read(tmp_path: Path) -> None:
    torch.save({"path": Path("anything")}, tmp_path / "foreign.ckpt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "foreign.ckpt")
