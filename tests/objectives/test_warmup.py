"""Warm-ups against their formulas, step by step."""

import math
from typing import Any

import pytest
import torch

from vaelab.objectives import Warmup


def _factors(warmup: Warmup, steps: int) -> list[float]:
    return [warmup(torch.tensor(float(step))).item() for step in range(steps)]


def test_no_warm_up_is_none() -> None:
    assert _factors(Warmup(), 3) == [1, 1, 1]


def test_the_linear_one_rises_once() -> None:
    assert _factors(Warmup(4), 7) == [0, 0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.parametrize(("steps", "cycles", "ramp"), [(40, 4, 0.5), (1000, 4, 1.0), (37, 3, 0.2), (8500, 7, 0.9)])
def test_the_cyclical_one_rises_in_every_cycle(steps: int, cycles: int, ramp: float) -> None:
    """By whole numbers, so that no rounding decides where a cycle begins."""
    expected = [min(1, (step * cycles % steps) / steps / ramp) for step in range(steps)] + [1] * 50
    assert _factors(Warmup(steps, cycles, ramp), steps + 50) == pytest.approx(expected, abs=1e-3)
    assert sum(factor == 0 for factor in expected) == math.gcd(steps, cycles)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "steps=-1: it must be an integer of at least 0"),
        ({"steps": 0.5}, "steps=0.5: it must be an integer"),
        ({"steps": True}, "steps=true: it must be an integer"),
        ({"steps": 10, "cycles": 0}, "cycles=0: it must be a positive integer; type e.g. cycles=1"),
        ({"steps": 10, "ramp": 0.0}, "ramp=0.0: it must be a number above 0 and at most 1"),
        ({"steps": 10, "ramp": 1.5}, "ramp=1.5: it must be a number above 0 and at most 1"),
        ({"steps": 10, "ramp": "half"}, "ramp=half: it must be a number above 0 and at most 1"),
        ({"cycles": 4}, "must say how many steps it takes"),
        ({"ramp": 0.5}, "must say how many steps it takes"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Warmup(**settings)
