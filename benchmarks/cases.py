"""The networks, the precisions and the clocks of ``throughput.py``."""

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import vaelab.commands.cli  # noqa: F401  # before Lightning, because it repairs torchvision

# isort: split
import lightning as L
import torch
from torch import Tensor

WARM_UP_SECONDS, SECONDS = 2.0, 6.0
_WARM_UP_STEPS = 5  # they compile and record

# The networks, with their overrides. Batches have 128 images if no size is given.
CASES = {
    "MathWorks, MNIST": ["experiment=mathworks_mnist"],
    "mlp, 128": ["model=mlp", "loss=bce", "latent_dim=20"],
    "MathWorks, 128": ["model=conv_mathworks_digits", "loss=mse", "latent_dim=32"],
    "MathWorks, 512": ["model=conv_mathworks_digits", "loss=mse", "latent_dim=32", "data.batch_size=512"],
    "TensorFlow, 32": [
        *("model=conv_tensorflow", "loss=bce", "objective=elbo_sampled", "latent_dim=2", "data.binarize=threshold"),
        *("optimizer.lr=1e-4", "data.batch_size=32"),
    ],
}
ACCELERATORS = {
    "cpu, 32 bits": ["accelerator=cpu"],
    "cpu, bfloat16": ["accelerator=cpu_bf16"],
    "gpu, 32 bits": ["accelerator=gpu"],
    "gpu, bfloat16": ["accelerator=gpu_bf16"],
    "gpu, bfloat16, compiled": ["accelerator=gpu_bf16", "compile=reduce-overhead"],
}


def composed(case: str, accelerator: str, *overrides: str) -> Any:
    """The configuration of ``train.py``."""
    from hydra import compose, initialize_config_dir

    from vaelab.runtime.paths import CONFIGS

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", ["data=mnist", *CASES[case], *ACCELERATORS[accelerator], *overrides])


def images_and_batch_size(cfg: Any) -> tuple[Tensor, int]:
    """The training images, uint8 (N, 1, 28, 28), and the batch size."""
    from hydra.utils import instantiate

    datamodule = instantiate(cfg.data, _convert_="all")
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule.splits["train"].images, cfg.data.batch_size


class Clock:
    """Measures images per second after a warm-up."""

    def __init__(self) -> None:
        self.first_step = self.images = 0.0
        self._begin = self._count = 0.0
        self.rate = 0.0

    def tick(self, images: int) -> bool:
        """Records the end of a step, and returns whether the measurement is complete."""
        at = time.perf_counter()
        if not self.first_step:
            self.first_step, self._first = time.time() - float(os.environ.get("STARTED", time.time())), at
        if not self._count:
            if at - self._first > WARM_UP_SECONDS:
                self._begin, self._count = now(), 1
            return False
        self.images += images
        if at - self._begin < SECONDS:
            return False
        self.rate = self.images / (now() - self._begin)
        return True


def now() -> float:
    """The time after the GPU has finished its work."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


class Watch(L.Callback):
    """Ends a training when its clock has measured enough."""

    clock = Clock()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if Watch.clock.tick(len(batch[0])):
            trainer.should_stop = True


class Laps(L.Callback):
    """Measures a whole training: the time until it is ready, after the first steps, and the time of the other steps."""

    ready, seconds, steps = 0.0, 0.0, 0
    _began = 0.0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            Laps._began = now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        Laps.steps += 1
        if Laps.steps == _WARM_UP_STEPS:
            Laps._began, Laps.ready = now(), time.time() - float(os.environ["STARTED"])
        if trainer.is_last_batch and Laps.steps > _WARM_UP_STEPS:
            Laps.seconds += now() - Laps._began
