"""The LightningModule: steps, logging and optimisers. The mathematics is in the VAE and its objective."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from vaelab.errors import UserError
from vaelab.vae import VAE

# Validation and test draw their latent samples from this seed, so that a figure is the same whenever it is computed
# and two checkpoints are compared on the same noise.
EVALUATION_SEED = 20131220


@contextmanager
def evaluation_noise(device: torch.device) -> Iterator[None]:
    """Fixes the random numbers of what is evaluated inside, and leaves those of the training as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        torch.manual_seed(EVALUATION_SEED)
        yield


class VAEModule(L.LightningModule):
    """Trains a VAE by an objective.

    Logged for each of ``train``, ``val`` and ``test``, averaged over images: the objective's ``loss`` and its terms
    (``elbo``, ``reconstruction``, ``kl``, ...). Training figures are means over the steps since the last were logged,
    every ``trainer.log_every_n_steps`` steps and at the end of an epoch; they are gathered on the device, because
    reading a number off it at every step would cost more than the step.

    Args:
        vae: the model.
        objective: see :mod:`vaelab.objectives`.
        optimizer: ``optimizer(parameters)``; ``None`` for a model that is not trained any more.
        scheduler: ``scheduler(optimizer, total_steps)``, see :mod:`vaelab.schedulers`; ``None`` for a constant rate.
    """

    def __init__(
        self,
        vae: VAE,
        objective: torch.nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.objective = objective
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.config: dict[str, Any] = {}  # the resolved configuration, stored in every checkpoint
        self.training_figures: dict[str, float] = {}  # the last that were logged
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self._steps = 0
        self._rate = 0.0
        self._noise: Any = None
        self._random_state: dict[str, Tensor] | None = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step's loss."""
        terms = self.objective(self.vae, batch[0])
        self._names = list(terms)
        means = torch.stack([value.detach().mean() for value in terms.values()])
        self._sum = means if self._sum is None else self._sum + means
        self._steps += 1
        self._rate = self.trainer.optimizers[0].param_groups[0]["lr"]  # before the scheduler moves it
        return terms["loss"]

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Logs the training figures when it is time."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        if (batch_idx + 1) % every == 0 or self.trainer.is_last_batch:
            self._log_training()

    def _log_training(self) -> None:
        # Straight to the loggers: self.log costs as much as a small network's step, at every step.
        assert self._sum is not None
        means = self.trainer.strategy.reduce(self._sum / self._steps, reduce_op="mean").tolist()
        self.training_figures = {f"train/{name}": mean for name, mean in zip(self._names, means, strict=True)}
        self._sum, self._steps = None, 0
        for logger in self.trainer.loggers:
            # Lightning logs validation figures at the number of the last step, counted from zero: so is this.
            logger.log_metrics({**self.training_figures, "lr": self._rate}, step=self.global_step - 1)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds a batch to the validation figures."""
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds a batch to the test figures."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        terms = self.objective(self.vae, batch[0])
        self.log_dict(
            {f"{split}/{name}": value.mean() for name, value in terms.items()},
            on_step=False,
            on_epoch=True,
            batch_size=len(batch[0]),
            sync_dist=True,
        )

    def _fix_noise(self) -> None:
        self._noise = evaluation_noise(self.device)
        self._noise.__enter__()

    def _free_noise(self) -> None:
        self._noise.__exit__(None, None, None)

    on_validation_epoch_start = on_test_epoch_start = _fix_noise
    on_validation_epoch_end = on_test_epoch_end = _free_noise

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and the scheduler with the number of steps it has."""
        assert self.optimizer is not None
        try:
            optimizer = self.optimizer(self.parameters())
        except (ValueError, TypeError) as error:  # here rather than where it was configured: it waits for parameters
            raise UserError(f"optimizer: {error}; --cfg job -p optimizer prints its settings") from error
        if self.scheduler is None:
            return optimizer
        total_steps = int(self.trainer.estimated_stepping_batches)
        try:
            scheduler = self.scheduler(optimizer, total_steps)
        except (ValueError, TypeError) as error:
            raise UserError(f"scheduler: {error}; --cfg job -p scheduler prints its settings") from error
        return {"optimizer": optimizer, "lr_scheduler": scheduler}  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the model, and the state of the random generators, in plain containers."""
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        checkpoint["vaelab"] = {"format": 1, "config": self.config, "metrics": metrics}
        checkpoint["random_state"] = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            checkpoint["random_state"]["cuda"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remembers the state of the random generators, to be set when training goes on."""
        self._random_state = checkpoint.get("random_state")

    def on_train_start(self) -> None:
        """Sets the random generators of a resumed training as they were."""
        state = self._random_state
        if state is not None:
            torch.set_rng_state(state["cpu"].cpu())
            if "cuda" in state and self.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda"].cpu(), self.device)
            self._random_state = None
