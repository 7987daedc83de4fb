"""Trainings that came to nothing: they are errors, because their metrics would be those of chance."""

import logging
import math
from collections.abc import Mapping

import lightning as L

from vaelab.runtime.errors import UserError
from vaelab.training.lightning_module import VAEModule

log = logging.getLogger(__name__)

_ADVICE = "type a lower optimizer.lr, or trainer.gradient_clip_val=1"


def check_steps(trainer: L.Trainer, module: VAEModule) -> None:
    """Refuses a training without a step that has changed the weights.

    Raises:
        UserError: with what to type.
    """
    steps, skipped = trainer.global_step, module.skipped_steps
    if not steps:
        raise UserError("the time was over before the first step: type a larger trainer.max_time")
    if skipped == steps:
        raise UserError(
            f"all {steps:,} steps were skipped, because their gradients were not finite: {_ADVICE}; "
            "module.bad_numbers=stop names the term"
        )
    if skipped:
        log.warning(
            "%s of %s steps were skipped, because their gradients were not finite", f"{skipped:,}", f"{steps:,}"
        )


def check_metric(name: str, metrics: Mapping[str, float], trainer: L.Trainer) -> None:
    """Refuses a model whose monitored metric is infinite or not a number.

    Args:
        name: of the metric.
        metrics: of the tested weights; without a validation they may lack the metric.
        trainer: with the metrics of the last weights, which only get a warning.

    Raises:
        UserError: with what to type.
    """
    if not math.isfinite(metrics.get(name, 0.0)):
        raise UserError(f"{name} is {metrics[name]}: this training came to nothing: {_ADVICE}")
    last = float(trainer.callback_metrics.get(name, 0.0))
    if not math.isfinite(last):
        log.warning("%s of the last epoch is %s: the training went wrong after the best epoch; %s", name, last, _ADVICE)
