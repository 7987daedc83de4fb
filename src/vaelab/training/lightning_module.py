"""The LightningModule: steps, logging and optimisers. The mathematics is in the VAE and its objective."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from vaelab.data.datamodule import ImageDataModule
from vaelab.models.likelihoods import bits_per_dim
from vaelab.models.vae import VAE
from vaelab.objectives import Objective
from vaelab.runtime.data_parallel import Shard, shared
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.random import evaluation_seed, random_state, set_random_state


def _share_of(batches: Any, batch: tuple[Tensor, Tensor]) -> Shard:
    """Which part of its batch this process has; all of it, where what delivers batches does not say."""
    share: Shard | None = getattr(batches, "share", None)
    return Shard.of(len(batch[0])) if share is None else share


class VAEModule(L.LightningModule):
    """Trains a VAE by an objective.

    Logged for each of ``train``, ``val`` and ``test``, averaged over images: the objective's ``loss`` and its terms
    (``elbo``, ``reconstruction``, ``kl``, ...). Training figures are means over the images since the last were logged,
    every ``trainer.log_every_n_steps`` steps and at the end of an epoch; they are gathered on the device, because
    reading a number off it at every step would cost more than the step.

    Several processes that share every batch, see :mod:`vaelab.runtime.data_parallel`, come to the same weights and figures as one
    would, but for the order of sums.

    Args:
        vae: the model.
        objective: see :mod:`vaelab.objectives`.
        optimizer: ``optimizer(parameters)``; ``None`` for a model that is not trained any more.
        scheduler: ``scheduler(optimizer, total_steps)``, see :mod:`vaelab.training.schedulers`; ``None`` for a constant rate.
        bad_numbers: what happens when a loss or a gradient is infinite or no number: ``stop``, the training ends, at
            the latest when figures are logged next; or ``skip``, that step changes nothing, and is counted. To skip,
            every step has to wait for its gradients to be looked at.
    """

    def __init__(
        self,
        vae: VAE,
        objective: Objective,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., dict[str, Any]] | None = None,
        bad_numbers: Literal["stop", "skip"] = "stop",
    ) -> None:
        super().__init__()
        if bad_numbers not in ("stop", "skip"):
            raise ValueError(f"module.bad_numbers is stop or skip, not {bad_numbers!r}")
        self.bad_numbers = bad_numbers
        self.vae = vae
        self.objective = objective
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.config: dict[str, Any] = {}  # the resolved configuration, stored in every checkpoint
        self.training_figures: dict[str, float] = {}  # the last that were logged
        self._step = self._step_on
        self._names: list[str] = []
        # Of each step since then: the sum of each term over this process's images; and how many these were.
        self._sums: list[Tensor] = []
        self._counts: list[int] = []
        self._evaluated: dict[str, Tensor] = {}  # the same of all validation or test images until now
        self._count = 0
        self.generators: dict[str, Tensor] = {}  # their states when a training begins, the same in every process
        self.skipped_steps = 0
        self._rate = 0.0
        self._noise: Any = None
        self._plateau: dict[str, Any] | None = None
        self.restored: dict[str, Any] | None = None  # of a checkpoint from which no step has been taken yet
        self.validated_at = -1  # the step of the last validation

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning sets it forty times a step, and looking for parameters takes time
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def setup(self, stage: str) -> None:
        """Tells the objective how many images there are to train with."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning's data connector
        if isinstance(datamodule, ImageDataModule):
            self.objective.data_size = len(datamodule.splits["train"].images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step's loss."""
        self.objective.step.fill_(self.global_step)
        share = _share_of(self.trainer.train_dataloader, batch)
        with shared(share):
            loss, sums = self._step(*batch)
        self._sums.append(sums if share.count else torch.zeros_like(sums))
        self._counts.append(share.count)
        self._rate = self.trainer.optimizers[0].param_groups[0]["lr"]  # before the scheduler moves it
        # Gradients are averaged over the processes, which may have different numbers of images.
        return loss if share.weight == 1 else loss * share.weight

    def _step_on(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch; and, for the figures, the sums of all terms over its images."""
        terms = self.objective(self.vae, x, y)
        self._names = list(terms)
        return terms["loss"], torch.stack([value.detach().expand(len(x)) for value in terms.values()]).sum(1)

    def compile_steps(self, mode: str = "default") -> None:
        """Compiles what a training step computes, when the first one is taken, once for each size of batch.

        It draws the same random numbers as before, and so gives the same figures but for rounding.

        Args:
            mode: of ``torch.compile``; ``reduce-overhead`` records CUDA graphs.
        """
        from torch._inductor import list_mode_options  # a second, and only here

        options = {**list_mode_options(mode), "fallback_random": True}
        compiled = torch.compile(self._step_on, fullgraph=True, dynamic=False, options=options)

        def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            torch.compiler.cudagraph_mark_step_begin()
            try:
                loss, sums = compiled(x, y)
            except Exception as error:
                if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise
                raise UserError(
                    f"compile: the step cannot be compiled ({first_line(error)}): type compile=false"
                ) from error
            return loss, sums.clone()  # a recorded graph writes to the same memory at every step

        self._step = step

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Logs the training figures when it is time."""
        if self._is_time_to_log(batch_idx):
            self._log_training()

    def _is_time_to_log(self, batch_idx: int) -> bool:
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        return (batch_idx + 1) % every == 0 or self.trainer.is_last_batch

    def _log_training(self) -> None:
        # Straight to the loggers: self.log costs as much as a small network's step, at every step.
        if not self._sums or not self.global_step:  # gradients are still being accumulated for the first one
            return
        steps = self._summed()
        total = steps.sum(0) if self.bad_numbers == "stop" else steps[steps.isfinite().all(1)].sum(0)
        *sums, count = total.tolist()
        self._sums, self._counts = [], []
        if not all(map(math.isfinite, sums)):
            raise UserError(self._what_is_bad(steps.cpu()))
        self.training_figures = {
            f"train/{name}": value / max(count, 1) for name, value in zip(self._names, sums, strict=True)
        }
        if self.bad_numbers == "skip":
            self.training_figures["train/skipped_steps"] = self.skipped_steps
        for logger in self.trainer.loggers:
            # Lightning logs validation figures at the number of the last step, counted from zero: so is this.
            logger.log_metrics({**self.training_figures, "lr": self._rate}, step=self.global_step - 1)

    def _summed(self) -> Tensor:
        """What was gathered of the steps, (steps, terms and number of images), over all processes."""
        sums = torch.stack(self._sums)
        counts = torch.tensor(self._counts, dtype=sums.dtype, device=sums.device)
        return self.trainer.strategy.reduce(torch.cat([sums, counts[:, None]], 1), reduce_op="sum")

    def _what_is_bad(self, steps: Tensor) -> str:
        """Where a training went wrong: terms (steps, terms and number), of the steps up to this one."""
        row = int((~steps.isfinite()).nonzero()[0, 0])
        names = [name for name, value in zip(self._names, steps[row], strict=False) if not value.isfinite()]
        step = self.global_step - (len(steps) - 1 - row) // self.trainer.accumulate_grad_batches
        terms = [name for name in names if name not in ("loss", "elbo")] or names
        if len(terms) > 1:
            cause = "the step before has ruined the weights: the learning rate is too high, or a gradient was too large"
        elif terms == ["kl"]:
            cause = "a posterior's scale has overflowed"
        else:
            cause = "an image is impossible under its reconstruction"
        return (
            f"{' and '.join(terms)} in step {step} {'is' if len(terms) == 1 else 'are'} not finite, most likely "
            f"because {cause}: type a lower optimizer.lr, trainer.gradient_clip_val=1, or module.bad_numbers=skip"
            f"{self._last_good_state()}"
        )

    def _last_good_state(self) -> str:
        saved = Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        return f"; the last good state is in {saved}" if saved.is_file() else ""

    def _check_what_is_saved(self, summed: Tensor | None) -> None:
        """Lets no ruined state take the place of the last good one, with what :meth:`_summed` gathered before it."""
        if summed is not None and self.bad_numbers == "stop" and not summed.isfinite().all():
            raise UserError(self._what_is_bad(summed.cpu()))
        if not torch.stack([parameter.isfinite().all() for parameter in self.parameters()]).all():
            raise UserError(
                f"weights after step {self.global_step} are not finite: type a lower optimizer.lr, or "
                f"trainer.gradient_clip_val=1{self._last_good_state()}"
            )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leaves a step out whose gradients are not finite, where that was asked for."""
        if self.bad_numbers == "stop":
            return
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        if not torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
            optimizer.zero_grad(set_to_none=True)  # what has no gradient, an optimiser passes over
            self.skipped_steps += 1

    def on_train_end(self) -> None:
        """Logs what is left, where the training ends in the middle of an epoch."""
        self._log_training()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds a batch to the validation figures."""
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Adds a batch to the test figures."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        loaders = {"val": self.trainer.val_dataloaders, "test": self.trainer.test_dataloaders}
        share = _share_of(loaders[split], batch)
        with shared(share):
            terms = self.objective(self.vae, *batch)
        if self.vae.likelihood.has_bits_per_dim:
            terms["bits_per_dim"] = bits_per_dim(terms["elbo"], self.vae.image_shape)
        for name, value in terms.items():
            name = f"{split}/{name}"
            self._evaluated[name] = self._evaluated.get(name, 0.0) + value.mean() * share.count
        self._count += share.count

    def _begin_evaluation(self) -> None:
        self._evaluated, self._count = {}, 0
        self._noise = evaluation_seed(self.device)
        self._noise.__enter__()

    def _end_evaluation(self) -> None:
        self._noise.__exit__(None, None, None)
        # Summed here, because Lightning rounds the mean number of images of a process down.
        sums = [*self._evaluated.values(), torch.tensor(float(self._count), device=self.device)]
        *sums, count = self.trainer.strategy.reduce(torch.stack(sums), reduce_op="sum")
        self.log_dict(dict(zip(self._evaluated, (value / count for value in sums), strict=True)))

    on_validation_epoch_start = on_test_epoch_start = _begin_evaluation
    on_test_epoch_end = _end_evaluation

    def on_validation_epoch_end(self) -> None:
        """Gives the training its random numbers back, and logs the figures."""
        self._end_evaluation()
        self.validated_at = self.global_step

    def on_train_epoch_end(self) -> None:
        """Moves a schedule that watches a figure, before the epoch's checkpoint is written.

        Lightning does so afterwards, and not at all in a training that goes on from that checkpoint.
        """
        if self._plateau is not None and self.validated_at == self.global_step:
            self._plateau["scheduler"].step(self.trainer.callback_metrics[self._plateau["monitor"]])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and the scheduler with the number of steps it has."""
        assert self.optimizer is not None
        try:
            optimizer = self.optimizer(self.parameters())
        except (ValueError, TypeError) as error:  # here rather than where it was configured: it waits for parameters
            raise UserError(f"optimizer: {error}; --cfg job -p optimizer prints its settings") from error
        if self.scheduler is None:
            return optimizer
        total_steps = self.trainer.estimated_stepping_batches
        if total_steps == float("inf"):
            raise UserError("scheduler: it has to know how long the training is; type trainer.max_epochs=... as well")
        try:
            scheduler = self.scheduler(optimizer, int(total_steps))
        except (ValueError, TypeError) as error:
            raise UserError(f"scheduler: {error}; --cfg job -p scheduler prints its settings") from error
        if "monitor" in scheduler:
            self._plateau = scheduler
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": scheduler}  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the model, and what goes on where it stopped, in plain containers."""
        if self.trainer.training and self._is_time_to_log(self.trainer.fit_loop.epoch_loop.batch_idx):
            self._log_training()  # Lightning saves before it gets there, and what goes on would not
        summed = self._summed() if self._sums else None
        self._check_what_is_saved(summed)
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        checkpoint["vaelab"] = {
            "format": 1,
            "config": self.config,
            "metrics": metrics,
            "random_states": [random_state(self.device)],  # the same in every process
            "training_sums": [] if summed is None else list(summed),
            "skipped_steps": self.skipped_steps,
            "plateau": None if self._plateau is None else self._plateau["scheduler"].state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remembers what is to be set when the training goes on."""
        self.restored = checkpoint["vaelab"]

    def on_train_start(self) -> None:
        """Gives the training its random numbers; those that it had, where it goes on.

        They are the same in all processes, each of which takes what belongs to its images.
        """
        restored, self.restored = self.restored, None
        if restored:
            set_random_state(restored["random_states"][0], self.device)
        elif self.generators:  # Lightning seeds several processes anew before it gets here
            set_random_state(self.generators, self.device)
        if restored:  # they are of all processes, and are summed again
            factor = float(self.global_rank == 0)
            gathered = restored.get("training_sums", [])
            self._sums = [sums[:-1].to(self.device) * factor for sums in gathered]
            self._counts = [round(float(sums[-1]) * factor) for sums in gathered]
            self.skipped_steps = restored.get("skipped_steps", 0)
        if restored and restored["plateau"] is not None and self._plateau is not None:
            self._plateau["scheduler"].load_state_dict(restored["plateau"])
