"""A progress bar for the whole training, with the time left; without a terminal, a line per epoch."""

import time
from typing import Any

import lightning as L
from rich import get_console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from vaelab.runtime.console import log_line, print_line
from vaelab.training.lightning_workarounds import batches_trained

_EVERY = 0.4  # seconds between two updates of the bar


class ProgressBar(L.Callback):
    """Shows epochs, steps, the latest validation ELBO, the time passed and the time left.

    The bar is updated between two steps. A thread of its own, as Rich has by default, would slow the steps down.
    """

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._pending = 0
        self._last = self._started = 0.0
        self._steps = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._started, self._steps = time.monotonic(), 0
        self._total = _total_batches(trainer)
        self._done_before = batches_trained(trainer)
        if get_console().is_terminal:
            self._bar = Bar(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
                console=get_console(),
                auto_refresh=False,
            )
            self._task = self._bar.add_task("training", total=self._total, completed=self._done_before, metrics="")
            self._bar.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=_epoch(trainer), refresh=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps += 1
        self._pending += 1
        self._refresh()

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._refresh()

    def _refresh(self) -> None:
        """Draws the bar, if the last update was long enough ago."""
        if self._bar is None or time.monotonic() - self._last < _EVERY:
            return
        self._bar.update(self._task, advance=self._pending, refresh=True)
        self._pending, self._last = 0, time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        elbo = trainer.callback_metrics.get("val/elbo")
        metrics = f"val/elbo {float(elbo):.2f}" if elbo is not None else ""
        if self._bar is not None:
            self._bar.update(self._task, metrics=metrics, refresh=True)
            log_line(f"{_epoch(trainer)}: {metrics}")
        elif self._steps:
            passed = time.monotonic() - self._started
            left = passed / self._steps * max(self._total - self._done_before - self._steps, 0) if self._total else None
            remaining = f", {left:.0f} s left" if left is not None else ""
            print_line(f"{_epoch(trainer)}: {metrics}, {passed:.0f} s passed{remaining}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, advance=self._pending, refresh=True)
            self._bar.stop()
            self._bar = None


def _epoch(trainer: L.Trainer) -> str:
    last = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{last}"


def _total_batches(trainer: L.Trainer) -> int | None:
    """The number of batches in the whole training; ``None`` if it is not known."""
    limits = []
    if trainer.max_epochs and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * trainer.num_training_batches)
    if trainer.max_steps and trainer.max_steps > 0:
        limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
    return int(min(limits)) if limits and min(limits) != float("inf") else None
