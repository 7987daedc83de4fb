"""How long a training takes."""

import time
from typing import Any

import lightning as L


class Stopwatch(L.Callback):
    """Counts training images and the seconds they took, without validation and its pictures.

    What goes on from a checkpoint counts on from there.

    Attributes:
        images, seconds: of the training.
        elapsed: seconds since the beginning, with everything.
    """

    def __init__(self) -> None:
        self.images, self.seconds, self._started = 0, 0.0, 0.0
        self._before, self._made = 0.0, time.perf_counter()
        self._is_over = False

    @property
    def elapsed(self) -> float:
        return self._before + time.perf_counter() - self._made

    def state_dict(self) -> dict[str, float]:
        running = time.perf_counter() - self._started if self._started else 0.0
        return {"images": self.images, "seconds": self.seconds + running, "elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        if self._is_over:  # the best epoch is loaded to be tested
            return
        self.images, self.seconds = int(state_dict["images"]), state_dict["seconds"]
        self._before = state_dict["elapsed"]

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
