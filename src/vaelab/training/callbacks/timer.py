"""Measures the time of a training."""

import time
from typing import Any

import lightning as L


class Stopwatch(L.Callback):
    """Counts training images and the seconds of their steps, without validation and its plots.

    A resumed training continues from the values of its checkpoint.

    Attributes:
        images: training images so far.
        seconds: of the training steps.
        elapsed: seconds since the beginning of the training, including all else.
    """

    def __init__(self) -> None:
        self.images, self.seconds, self._started = 0, 0.0, 0.0
        self._elapsed_before, self._created = 0.0, time.perf_counter()  # the first is from a checkpoint
        self._is_over = False

    @property
    def elapsed(self) -> float:
        return self._elapsed_before + time.perf_counter() - self._created

    def state_dict(self) -> dict[str, float]:
        running = time.perf_counter() - self._started if self._started else 0.0
        return {"images": self.images, "seconds": self.seconds + running, "elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        if self._is_over:  # the best checkpoint is loaded for the test
            return
        self.images, self.seconds = int(state_dict["images"]), state_dict["seconds"]
        self._elapsed_before = state_dict["elapsed"]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._started = self._started or time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += batch.shard.total

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pause()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pause()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._is_over = True

    def _pause(self) -> None:
        if self._started:
            self.seconds += time.perf_counter() - self._started
            self._started = 0.0
