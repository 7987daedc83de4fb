"""A training that came to nothing is an error; one that went wrong after its best epoch is a warning."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.trainings import trained
from vaelab.runtime.errors import UserError
from vaelab.training import outcome

NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["trainer.limit_train_batches=0"], "trainer.limit_train_batches=0: it must be a positive integer"),
        (["+trainer.max_time=00:00:00:00"], "the time was over before the first step: type a larger trainer.max_time"),
        (
            ["optimizer.lr=1e12", "module.bad_numbers=skip"],
            "val/elbo is nan: this training came to nothing: type a lower",
        ),
    ],
)
def test_a_training_that_came_to_nothing_is_an_error(
    options: list[str], said: str, tmp_path: Path, tiny_data: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        trained(tmp_path, *tiny_data, "callbacks=none", *options)
    assert str(caught.value).startswith(said)
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


def test_steps_that_were_all_skipped_count_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    trainer: Any = SimpleNamespace(global_step=8)
    module: Any = SimpleNamespace(skipped_steps=8)
    with pytest.raises(UserError, match="all 8 steps were skipped"):
        outcome.check_steps(trainer, module)
    module.skipped_steps = 3
    outcome.check_steps(trainer, module)
    assert "3 of 8 steps were skipped" in caplog.text


def test_a_metric_of_the_tested_weights_is_a_number(caplog: pytest.LogCaptureFixture) -> None:
    trainer: Any = SimpleNamespace(callback_metrics={})
    outcome.check_metric("val/elbo", {}, trainer)  # there was no validation
    outcome.check_metric("val/elbo", {"val/elbo": -1.0, "val/kl": NAN}, trainer)
    for value in (NAN, float("inf"), -float("inf")):
        with pytest.raises(UserError, match=f"test/elbo is {value}: this training came to nothing"):
            outcome.check_metric("test/elbo", {"test/elbo": value}, trainer)
    assert not caplog.text
    trainer.callback_metrics = {"val/elbo": torch.tensor(NAN)}
    outcome.check_metric("val/elbo", {"val/elbo": -1.0}, trainer)
    assert "val/elbo of the last epoch is nan: the training went wrong after the best epoch" in caplog.text
