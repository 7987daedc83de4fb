"""Whatever can be composed either trains or is refused with a reason."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import composed
from tests.test_configs import options
from vaelab.commands.error_messages import explain
from vaelab.commands.train import train

_numbers = st.one_of(st.integers(-2, 40), st.floats(-2, 40), st.sampled_from([0, 1, 2, "true", "null", "many", "[]"]))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Some options, and some settings, of which a few are impossible."""
    groups = ("model", "loss", "prior", "posterior", "objective", "optimizer", "scheduler")
    typed = {group: draw(st.sampled_from(options(group))) for group in groups if draw(st.booleans())}
    settings = {
        "latent_dim": st.one_of(st.integers(1, 9), _numbers),
        "seed": st.one_of(st.integers(0, 2**32 - 1), _numbers),
        "conditional": st.sampled_from(["true", "false", "maybe"]),
        "data.binarize": st.sampled_from(["none", "threshold", "dynamic", "static", "always"]),
        "data.batch_size": st.one_of(st.integers(1, 64), _numbers),
        "data.validation": st.one_of(st.just("test"), st.floats(0, 1), _numbers),
        "data.shuffle": st.booleans(),
        "data.drop_last": st.booleans(),
        "optimizer.lr": st.one_of(st.floats(1e-5, 1e-2), _numbers),
        "trainer.max_epochs": st.one_of(st.just(1), _numbers),
        "trainer.accumulate_grad_batches": st.one_of(st.integers(1, 3), _numbers),
        "trainer.gradient_clip_val": st.one_of(st.none(), st.floats(0, 5), _numbers),
        "trainer.precision": st.sampled_from(["32-true", "bf16-mixed", "16-mixed", "64-true", "8"]),
        "module.objective.divergence": st.sampled_from(["analytic", "sampled", "exact"]),
        "module.objective.samples": st.one_of(st.integers(1, 3), _numbers),
        "module.bad_numbers": st.sampled_from(["stop", "skip", "hide"]),
    }
    for name, values in settings.items():
        if draw(st.integers(0, 3)) == 0:
            value = draw(values)
            typed[name] = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return [f"{name}={value}" for name, value in typed.items()]


@pytest.mark.slow
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # to shrink an example takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(command_lines())
def test_whatever_composes_trains_or_is_refused_with_a_reason(tiny_data: list[str], typed: list[str]) -> None:
    chosen = {override.partition("=")[0]: override for override in (*tiny_data, *typed)}
    with tempfile.TemporaryDirectory() as folder:
        short = ("data.limit=24", "trainer.max_steps=2", "callbacks=none", "logger=none", f"run_dir={Path(folder)}")
        try:
            figures = train(composed("train", *chosen.values(), *short))
        except Exception as error:
            line = explain(error)
            if line is None:
                raise
            assert line
            assert "\n" not in line
        else:
            assert figures["steps"] <= 2
