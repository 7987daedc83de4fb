"""Warm-up: a weight that rises from 0 at the beginning of a training, once or in cycles."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vaelab.objectives.base import Objective
from vaelab.runtime.validation import FractionOrOne, NonNegativeInt, PositiveInt, check_fields


@dataclass(frozen=True)
class Warmup:
    r"""A factor between 0 and 1, a function of the optimisation step t.

    .. math:: \min\Bigl(1, \frac1r \bigl(\tfrac{M t}{T} \bmod 1\bigr)\Bigr) \quad (t < T), \qquad 1 \quad (t \ge T)

    By default there is no warm-up, and the factor is always 1. With ``steps`` only, it rises linearly once (Sønderby et
    al. 2016, arXiv 1602.02282). With several ``cycles`` it starts from 0 in each cycle; a ``ramp`` of one half is usual
    (Fu et al. 2019, arXiv 1903.10145).

    Args:
        steps: T, the length of the warm-up in optimisation steps; 0 for none.
        cycles: M, how often the factor rises in these steps.
        ramp: r, the fraction of a cycle in which it rises, above 0 and at most 1. In the rest of the cycle it is 1.

    Raises:
        ValueError: a value is out of range, or ``cycles`` or ``ramp`` is set without ``steps``.
    """

    steps: NonNegativeInt = 0
    cycles: PositiveInt = 1
    ramp: FractionOrOne = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.steps and (self.cycles, self.ramp) != (1, 1):
            raise ValueError("a warm-up with cycles or a ramp must say how many steps it takes: steps is 0")

    def __call__(self, step: Tensor) -> Tensor:
        """The factor at an optimisation step, a scalar tensor on the same device; it does not wait for the device."""
        full = torch.ones_like(step)
        if not self.steps:
            return full
        rising = (step * self.cycles / self.steps).frac() / self.ramp
        return torch.where(step < self.steps, rising.clamp(max=1), full)


class AnnealedObjective(Objective):
    """Base class of objectives whose penalty on the latents can have a warm-up.

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
        """The factor of the warm-up, from 0 to 1, a scalar.

        In evaluation mode it is 1. Otherwise the losses of different epochs could not be compared, and an epoch with
        small weights would count as the best.
        """
        return self.warmup(self.step) if self.training else torch.ones_like(self.step)
