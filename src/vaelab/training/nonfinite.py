"""Losses, gradients and weights that are infinite or not a number: which step, which term, and what to type."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.errors import UserError


class NonfiniteGuard:
    """Ends a training whose numbers are not finite, or leaves such steps out and counts them.

    Args:
        skips: whether steps with such gradients are left out.

    Attributes:
        skipped_steps: how many steps were left out.
    """

    def __init__(self, skips: bool) -> None:
        self.skips = skips
        self.skipped_steps = 0

    def finite_rows(self, table: Tensor) -> Tensor:
        """The rows of a table of sums that count; the rows of skipped steps do not."""
        return table[table.isfinite().all(1)] if self.skips else table

    def check_table(
        self, table: Tensor, names: Sequence[str], last_step: int, batches_per_step: int, run_dir: Path
    ) -> None:
        """Refuses sums that are not finite.

        Args:
            table: the sums of the last batches, (batches, terms + 1).
            names: of the terms.
            last_step: the number of the optimisation step to which the last batch belongs.
            batches_per_step: batches whose gradients are accumulated for one step.
            run_dir: the run folder.

        Raises:
            UserError: with the step, the terms, the likely cause and what to type.
        """
        if self.skips or bool(table.isfinite().all()):
            return
        row = int((~table.isfinite()).nonzero()[0, 0])
        found = [name for name, value in zip(names, table[row], strict=False) if not value.isfinite()]
        step = last_step - (len(table) - 1 - row) // batches_per_step
        terms = [name for name in found if name not in ("loss", "elbo")] or found
        if len(terms) > 1:
            cause = "the step before has ruined the weights: the learning rate is too high, or a gradient was too large"
        elif terms == ["kl"]:
            cause = "a posterior's scale has overflowed"
        else:
            cause = "an image is impossible under its reconstruction"
        raise UserError(
            f"{' and '.join(terms)} in step {step} {'is' if len(terms) == 1 else 'are'} not finite, most likely "
            f"because {cause}: type a lower optimizer.lr, trainer.gradient_clip_val=1, or module.bad_numbers=skip"
            f"{_last_good_state(run_dir)}"
        )

    @staticmethod
    def check_weights(parameters: Iterable[nn.Parameter], step: int, run_dir: Path) -> None:
        """Refuses weights that are not finite, before they replace the last good checkpoint.

        Raises:
            UserError: with what to type.
        """
        if not torch.stack([parameter.isfinite().all() for parameter in parameters]).all():
            raise UserError(
                f"weights after step {step} are not finite: type a lower optimizer.lr, or trainer.gradient_clip_val=1"
                f"{_last_good_state(run_dir)}"
            )

    def before_step(self, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Leaves a step out if its gradients are not finite and such steps are to be skipped.

        Every step then waits for its gradients.
        """
        if not self.skips:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
            optimizer.zero_grad(set_to_none=True)  # an optimiser passes over parameters without a gradient
            self.skipped_steps += 1


def _last_good_state(run_dir: Path) -> str:
    saved = RunFolder(run_dir).checkpoint("last")
    return f"; the last good state is in {saved}" if saved.is_file() else ""
