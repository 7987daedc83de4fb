"""The progress bar, on a terminal and without one."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from vaelab.training.callbacks import progress_bar
from vaelab.training.callbacks.progress_bar import ProgressBar


def _output(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> str:
    """What an epoch of four steps prints, with its validation."""
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=120)
    monkeypatch.setattr("rich._console", console)
    trainer: Any = SimpleNamespace(
        is_global_zero=True,
        sanity_checking=False,
        current_epoch=0,
        max_epochs=2,
        max_steps=-1,
        num_training_batches=4,
        accumulate_grad_batches=1,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=-1)),
        callback_metrics={"val/elbo": torch.tensor(-123.456)},
    )
    module: Any = None
    bar = ProgressBar()
    bar.on_train_start(trainer, module)
    bar.on_train_epoch_start(trainer, module)
    for batch in range(4):
        bar.on_train_batch_end(trainer, module, None, None, batch)
    bar.on_validation_end(trainer, module)
    bar.on_train_end(trainer, module)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_epoch_steps_and_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "_EVERY", 0.0)
    printed = _output(monkeypatch, is_terminal=True)
    last = printed.rpartition("epoch 1/2")[2]
    assert "4/8" in last
    assert "val/elbo -123.46" in last


def test_without_a_terminal_there_is_a_line_per_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _output(monkeypatch, is_terminal=False).startswith("epoch 1/2: val/elbo -123.46, 0 s passed, 0 s left\n")
