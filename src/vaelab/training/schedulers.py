"""Learning-rate schedules: functions of an optimiser and of the number of its steps.

Each returns a scheduler configuration of Lightning. It holds the scheduler, which moves at every step or, if there is a
metric to ``monitor``, after every validation.
"""

import math
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from vaelab.runtime.validation import FractionOrZero, NonNegativeInt, NonNegativeNumber, checked


@checked
def cosine(
    optimizer: Optimizer, total_steps: int, warmup: FractionOrZero = 0.0, final: NonNegativeNumber = 0.0
) -> dict[str, Any]:
    """Half a cosine from the learning rate down to a fraction of it, after a linear warm-up (arXiv 1608.03983).

    Args:
        optimizer: its learning rate is the peak.
        total_steps: optimisation steps of the whole training.
        warmup: the fraction of the steps in which the rate rises linearly, at least 0 and below 1.
        final: the rate of the last step, as a fraction of the peak.

    Raises:
        ValueError: ``warmup`` is out of range.
    """
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        progress = min((step - rising) / max(total_steps - 1 - rising, 1), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


@checked
def plateau(
    optimizer: Optimizer,
    total_steps: int,
    factor: float = 0.5,
    patience: NonNegativeInt = 5,
    threshold: float = 0.0,
    monitor: str = "val/elbo",
    mode: Literal["max", "min"] = "max",
) -> dict[str, Any]:
    """Multiplies the rate by ``factor`` when ``monitor`` has not improved for ``patience`` validations.

    Args:
        optimizer: with the learning rate.
        total_steps: not used; every schedule gets it.
        factor: by which the rate is multiplied.
        patience: validations without an improvement.
        threshold: the least difference from the best value that counts as an improvement, in the unit of ``monitor``.
            (torch's default is a fraction of the best value. With it, a negative ELBO that falls a little improves.)
        monitor: a validation metric.
        mode: ``max`` if larger values are better, ``min`` if smaller ones are.
    """
    scheduler = ReduceLROnPlateau(
        optimizer, mode=mode, factor=factor, patience=patience, threshold=threshold, threshold_mode="abs"
    )
    return {"scheduler": scheduler, "monitor": monitor}
