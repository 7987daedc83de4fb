"""Learning-rate schedules: functions of an optimiser and the number of steps it will take.

Each returns what Lightning calls a scheduler configuration: the scheduler, and when it moves: at every step, or, if it
names a figure to ``monitor``, after every validation.
"""

import math
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from vaelab.runtime.validation import FractionOrZero, NonNegativeInt, checked


@checked
def cosine(optimizer: Optimizer, total_steps: int, warmup: FractionOrZero = 0.0, final: float = 0.0) -> dict[str, Any]:
    """Half a cosine from the learning rate down to a fraction of it, after a linear warm-up (arXiv 1608.03983).

    Args:
        optimizer: whose learning rate is the peak.
        total_steps: optimisation steps of the whole training.
        warmup: the fraction of them, from 0 to below 1, in which the rate rises linearly.
        final: the rate of the last step, as a fraction of the peak.

    Raises:
        ValueError: ``warmup`` is no such fraction.
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
        optimizer: whose learning rate it is.
        total_steps: not needed; every schedule is given it.
        factor: of the rate.
        patience: validations.
        threshold: by how much more than the best so far is an improvement, in the units of ``monitor``. (torch's own
            default is a fraction of the best, by which a negative ELBO that falls a little has improved.)
        monitor: a validation figure.
        mode: whether more of it is better, or less.
    """
    scheduler = ReduceLROnPlateau(
        optimizer, mode=mode, factor=factor, patience=patience, threshold=threshold, threshold_mode="abs"
    )
    return {"scheduler": scheduler, "monitor": monitor}
