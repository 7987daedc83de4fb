"""Learning-rate schedules: functions of an optimiser and the number of steps it will take.

Each returns what Lightning calls a scheduler configuration: the scheduler, and whether it moves by step or by epoch.
"""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.0, final: float = 0.0) -> dict[str, Any]:
    """Half a cosine from the learning rate down to a fraction of it, after a linear warm-up (arXiv 1608.03983).

    Args:
        optimizer: whose learning rate is the peak.
        total_steps: optimisation steps of the whole training.
        warmup: the fraction of them, from 0 to below 1, in which the rate rises from zero.
        final: the last rate, as a fraction of the peak.

    Raises:
        ValueError: ``warmup`` is no such fraction.
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"the cosine schedule's warmup is a fraction of the training in [0, 1), not {warmup}")
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        progress = min((step - rising) / max(total_steps - rising, 1), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def plateau(
    optimizer: Optimizer, total_steps: int, factor: float = 0.5, patience: int = 5, monitor: str = "val/elbo"
) -> dict[str, Any]:
    """Multiplies the rate by ``factor`` when ``monitor`` has not risen for ``patience`` epochs."""
    scheduler = ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience)
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}
