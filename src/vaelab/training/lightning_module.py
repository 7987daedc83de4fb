"""The LightningModule: steps, logging and optimisers. The mathematics is in the VAE and its objective."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from vaelab.data.batches import Batch
from vaelab.data.datamodule import ImageDataModule
from vaelab.models.likelihoods import bits_per_dim
from vaelab.models.vae import VAE
from vaelab.objectives import Objective
from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.errors import UserError
from vaelab.runtime.random import evaluation_seed, random_state, set_random_state
from vaelab.runtime.validation import SettingError, checked, within
from vaelab.training import lightning_workarounds
from vaelab.training.compilation import Step, compiled_step
from vaelab.training.metric_sums import MetricSums, sums_of
from vaelab.training.nonfinite import NonfiniteGuard

_KERNELS = (
    "fused",
    "foreach",
    "capturable",
)  # settings of optimisers that depend on the device, and not on a checkpoint


class VAEModule(lightning_workarounds.QuickAttributes):
    """Trains a VAE by an objective.

    Logged for each of ``train``, ``val`` and ``test``, averaged over images: the objective's ``loss`` and its terms
    (``elbo``, ``reconstruction``, ``kl``, ...). Training metrics are means over the images since the last logging,
    every ``trainer.log_every_n_steps`` steps and at the end of an epoch.

    Several processes that share every batch (:mod:`vaelab.runtime.data_parallel`) get the same weights and metrics as
    one process, except for the order of sums.

    Args:
        vae: the model.
        objective: see :mod:`vaelab.objectives`.
        optimizer: ``optimizer(parameters)``; ``None`` for a model that is not trained any more.
        scheduler: ``scheduler(optimizer, total_steps)``, see :mod:`vaelab.training.schedulers`; ``None`` for a constant
            learning rate.
        bad_numbers: the reaction to a loss or a gradient that is infinite or not a number. ``stop`` ends the training,
            at the latest when metrics are logged next. ``skip`` leaves the step out and counts it; every step then
            waits for its gradients.

    Attributes:
        config: the resolved configuration, stored in every checkpoint.
        training_metrics: the last that were logged.
        generators: states of the random generators for the start of a training on several processes.
        restored: the part of a checkpoint from which the next training step continues.
        validated_at: the step of the last validation.
    """

    @checked
    def __init__(
        self,
        vae: VAE,
        objective: Objective,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., dict[str, Any]] | None = None,
        bad_numbers: Literal["stop", "skip"] = "stop",
    ) -> None:
        super().__init__()
        self.vae = vae
        self.objective = objective
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.config: dict[str, Any] = {}
        self.training_metrics: dict[str, float] = {}
        self.generators: dict[str, Tensor] = {}
        self.restored: dict[str, Any] | None = None
        self.validated_at = -1
        self._guard = NonfiniteGuard(skips=bad_numbers == "skip")
        self._step: Step = self._compute_step
        self._terms: list[str] = []
        self._training_sums = MetricSums(by_batch=True)
        self._evaluation_sums = MetricSums()
        self._evaluation = ExitStack()  # the seed of a validation or a test, while it runs
        self._learning_rate = 0.0
        self._plateau: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        """Gives the objective the number of training images."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning's data connector
        if isinstance(datamodule, ImageDataModule):
            self.objective.data_size = len(datamodule.splits["train"].images)

    def compile_steps(self, mode: str = "default") -> None:
        """Compiles the training step, see :func:`vaelab.training.compilation.compiled_step`."""
        self._step = compiled_step(self._compute_step, mode)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one step."""
        self.objective.step.fill_(self.global_step)
        loss, sums = self._step(*batch)
        self._training_sums.add(self._terms, sums, batch.shard.count)
        self._learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]  # before the scheduler changes it
        # Gradients are averaged over the processes, which may have different numbers of images.
        return loss if batch.shard.weight == 1 else loss * batch.shard.weight

    def _compute_step(self, x: Tensor, y: Tensor, shard: Shard) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and the sums of all terms over its images."""
        terms = self.objective(self.vae, x, y, shard)
        self._terms = list(terms)
        return terms["loss"], sums_of(terms, len(x))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Logs the training metrics at every ``trainer.log_every_n_steps``-th step."""
        if self._is_time_to_log(batch_idx):
            self._log_training()

    def _is_time_to_log(self, batch_idx: int) -> bool:
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        return (batch_idx + 1) % every == 0 or self.trainer.is_last_batch

    def _log_training(self) -> None:
        # Straight to the loggers: self.log costs as much as a small network's step, at every step.
        if not len(self._training_sums) or not self.global_step:  # the first step still accumulates gradients
            return
        table = self._training_sums.table(self.trainer.strategy)
        self._check(table)
        self._training_sums.clear()
        means = self._training_sums.means(self._guard.finite_rows(table))
        self.training_metrics = {f"train/{name}": value for name, value in means.items()}
        if self._guard.skips:
            self.training_metrics["train/skipped_steps"] = self._guard.skipped_steps
        for logger in self.trainer.loggers:
            # Lightning logs validation metrics at the number of the last step, counted from zero: so is this.
            logger.log_metrics({**self.training_metrics, "lr": self._learning_rate}, step=self.global_step - 1)

    def _check(self, table: Tensor) -> None:
        """Refuses sums that are not finite."""
        names, batches = self._training_sums.names, self.trainer.accumulate_grad_batches
        self._guard.check_table(table, names, self.global_step, batches, self._run_dir)

    @property
    def skipped_steps(self) -> int:
        """Steps that were left out because their gradients were not finite."""
        return self._guard.skipped_steps

    @property
    def _run_dir(self) -> Path:
        return Path(self.trainer.default_root_dir)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leaves out a step with gradients that are not finite, if the settings say so."""
        self._guard.before_step(self.parameters(), optimizer)

    def on_train_end(self) -> None:
        """Logs the rest, if the training ends within an epoch."""
        self._log_training()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch to the validation metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch to the test metrics."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, split: str) -> None:
        terms = self.objective(self.vae, *batch)
        if self.vae.likelihood.has_bits_per_dim:
            terms["bits_per_dim"] = bits_per_dim(terms["elbo"], self.vae.image_shape)
        count = batch.shard.count
        sums = torch.stack([value.mean() * count for value in terms.values()])
        self._evaluation_sums.add([f"{split}/{name}" for name in terms], sums, count)

    def _begin_evaluation(self) -> None:
        self._evaluation_sums.clear()
        self._evaluation.enter_context(evaluation_seed(self.device))

    def _end_evaluation(self) -> None:
        self._evaluation.close()  # the training gets its random states back
        self.log_dict(self._evaluation_sums.means(self._evaluation_sums.table(self.trainer.strategy)))

    on_validation_epoch_start = on_test_epoch_start = _begin_evaluation
    on_test_epoch_end = _end_evaluation

    def on_validation_epoch_end(self) -> None:
        """Logs the validation metrics."""
        self._end_evaluation()
        self.validated_at = self.global_step

    def on_train_epoch_end(self) -> None:
        """Moves a schedule that watches a metric, before the checkpoint of the epoch is written.

        Lightning moves it after that, and not at all in a training that is resumed from that checkpoint.
        """
        if self._plateau is not None and self.validated_at == self.global_step:
            self._plateau["scheduler"].step(self.trainer.callback_metrics[self._plateau["monitor"]])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and the scheduler with the number of its steps."""
        assert self.optimizer is not None
        try:
            optimizer = self.optimizer(self.parameters())
        except (ValueError, TypeError) as error:  # here and not at its configuration, because it waits for parameters
            raise UserError(f"optimizer: {error}; --cfg job -p optimizer prints its settings") from error
        if self.scheduler is None:
            return optimizer
        total_steps = self.trainer.estimated_stepping_batches
        if total_steps == float("inf"):
            raise UserError("scheduler: it has to know how long the training is; type trainer.max_epochs=... as well")
        try:
            with within("scheduler"):
                scheduler = self.scheduler(optimizer, int(total_steps))
        except SettingError:
            raise
        except (ValueError, TypeError) as error:
            raise UserError(f"scheduler: {error}; --cfg job -p scheduler prints its settings") from error
        if "monitor" in scheduler:
            self._plateau = scheduler
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": scheduler}  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the configuration that rebuilds the model and the state that resumes the training, as plain values."""
        if self.trainer.training and self._is_time_to_log(lightning_workarounds.current_batch(self.trainer)):
            self._log_training()  # Lightning saves before it logs, and a resumed training would not log this step
        table = self._training_sums.table(self.trainer.strategy) if len(self._training_sums) else None
        if table is not None:  # a ruined state must not replace the last good one
            self._check(table)
        self._guard.check_weights(self.parameters(), self.global_step, self._run_dir)
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        checkpoint["vaelab"] = {
            "format": 1,
            "config": self.config,
            "metrics": metrics,
            "random_states": [random_state(self.device)],  # the same in every process
            "training_sums": [] if table is None else list(table),
            "skipped_steps": self._guard.skipped_steps,
            "plateau": None if self._plateau is None else self._plateau["scheduler"].state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the state from which the training continues when it starts."""
        self.restored = checkpoint["vaelab"]

    def on_train_start(self) -> None:
        """Sets the state in which the training starts or goes on."""
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group.update({name: optimizer.defaults[name] for name in _KERNELS if name in optimizer.defaults})
        self._restore()

    def _restore(self) -> None:
        """Sets the random states and, in a resumed training, everything else that the checkpoint holds.

        Random states are the same in all processes. Each process takes the numbers for its images.
        """
        restored, self.restored = self.restored, None
        if restored is None:
            if self.generators:  # Lightning has seeded the processes again
                set_random_state(self.generators, self.device)
            return
        set_random_state(restored["random_states"][0], self.device)
        self._training_sums.restore(restored.get("training_sums", []), self.device, self.global_rank == 0)
        self._guard.skipped_steps = restored.get("skipped_steps", 0)
        if restored["plateau"] is not None and self._plateau is not None:
            self._plateau["scheduler"].load_state_dict(restored["plateau"])
