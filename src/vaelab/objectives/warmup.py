"""Warm-up: a weight that rises at the beginning of a training, once or again and again."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vaelab.objectives.base import Objective
from vaelab.runtime.validation import FractionOrOne, NonNegativeInt, PositiveInt, check_fields


@dataclass(frozen=True)
class Warmup:
    r"""A factor between 0 and 1 that follows from the optimisation step t.

    .. math:: \min\Bigl(1, \frac1r \bigl(\tfrac{M t}{T} \bmod 1\bigr)\Bigr) \quad (t < T), \qquad 1 \quad (t \ge T)

    The defaults are no warm-up: the factor is always 1. ``steps`` alone gives the linear one, from 0 to 1 (Sønderby et
    al. 2016, arXiv 1602.02282); several ``cycles``, each of which starts from 0 again, the cyclical one, where half of
    a cycle is usual for the ``ramp`` (Fu et al. 2019, arXiv 1903.10145).

    Args:
        steps: T, the optimisation steps that it takes, 0 for none.
        cycles: M, how often the factor rises in these steps.
        ramp: r, the fraction of a cycle in which it rises, above 0 and at most 1; for the rest of the cycle it is 1.

    Raises:
        ValueError: a value is impossible, or cycles of no steps are asked for.
    """

    steps: NonNegativeInt = 0
    cycles: PositiveInt = 1
    ramp: FractionOrOne = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.steps and (self.cycles, self.ramp) != (1, 1):
            raise ValueError("a warm-up with cycles or a ramp must say how many steps it takes: steps is 0")

    def __call__(self, step: Tensor) -> Tensor:
        """The factor at this optimisation step, a scalar tensor; nothing is read off the device."""
        full = torch.ones_like(step)
        if not self.steps:
            return full
        rising = (step * self.cycles / self.steps).frac() / self.ramp
        return torch.where(step < self.steps, rising.clamp(max=1), full)


class AnnealedObjective(Objective):
    """Base class of objectives that keep the latents near the prior, and need not do so from the beginning on.

    Args:
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: ``None`` for none.
    """

    def __init__(
        self,
        samples: int = 1,
        divergence: Literal["analytic", "sampled"] = "analytic",
        warmup: Warmup | None = None,
    ) -> None:
        super().__init__(samples, divergence)
        self.warmup = Warmup() if warmup is None else warmup

    def warmup_factor(self) -> Tensor:
        """How far the warm-up has come, from 0 to 1, a scalar.

        In evaluation mode it is over: losses under different weights could not be compared, and the best epoch would
        be one of the first.
        """
        return self.warmup(self.step) if self.training else torch.ones_like(self.step)
