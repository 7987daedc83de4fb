"""The step and the terms that are not finite are named; steps that are left out are counted."""

from pathlib import Path

import pytest
import torch
from torch import nn

from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.errors import UserError
from vaelab.training.nonfinite import NonfiniteGuard

NAMES = ["loss", "elbo", "reconstruction", "kl"]
GOOD = [1.0, -1.0, 0.5, 0.5, 8.0]  # and the number of images
INF = float("inf")


@pytest.mark.parametrize(
    ("bad", "batches", "message"),
    [
        ([INF, -INF, 0.5, INF, 8.0], 1, "kl in step 9 is not finite, most likely because a posterior's scale"),
        ([INF, -INF, INF, 0.5, 8.0], 1, "reconstruction in step 9 is not finite, most likely because an image"),
        ([INF, -INF, INF, INF, 8.0], 1, "reconstruction and kl in step 9 are not finite, most likely because the step"),
        ([INF, -INF, INF, INF, 8.0], 2, "reconstruction and kl in step 10 are"),  # two batches make a step
    ],
)
def test_the_first_bad_step_is_named(bad: list[float], batches: int, message: str, tmp_path: Path) -> None:
    table = torch.tensor([GOOD, bad, GOOD])
    with pytest.raises(UserError, match=message) as error:
        NonfiniteGuard(skips=False).check_table(table, NAMES, 10, batches, tmp_path)
    assert "last good state" not in str(error.value)
    saved = RunFolder(tmp_path).checkpoint("last")
    saved.parent.mkdir()
    saved.touch()
    with pytest.raises(UserError, match=f"the last good state is in {saved}"):
        NonfiniteGuard(skips=False).check_table(table, NAMES, 10, batches, tmp_path)


def test_finite_numbers_pass_and_skipped_steps_do_not_count(tmp_path: Path) -> None:
    table = torch.tensor([GOOD, [INF] * 5, GOOD])
    NonfiniteGuard(skips=False).check_table(table[::2], NAMES, 10, 1, tmp_path)
    guard = NonfiniteGuard(skips=True)
    guard.check_table(table, NAMES, 10, 1, tmp_path)
    assert torch.equal(guard.finite_rows(table), table[::2])
    assert NonfiniteGuard(skips=False).finite_rows(table) is table


def test_a_step_with_bad_gradients_changes_nothing_and_is_counted() -> None:
    layer = nn.Linear(1, 1)
    optimizer, guard = torch.optim.SGD(layer.parameters(), 0.1), NonfiniteGuard(skips=True)
    before = [parameter.clone() for parameter in layer.parameters()]
    (layer(torch.ones(1, 1)) * INF).sum().backward()
    guard.before_step(layer.parameters(), optimizer)
    optimizer.step()
    assert all(map(torch.equal, before, layer.parameters()))
    assert guard.skipped_steps == 1
    layer(torch.ones(1, 1)).sum().backward()
    guard.before_step(layer.parameters(), optimizer)
    optimizer.step()
    assert not any(map(torch.equal, before, layer.parameters()))
    assert guard.skipped_steps == 1


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    layer = nn.Linear(1, 1)
    NonfiniteGuard.check_weights(layer.parameters(), 3, tmp_path)
    with torch.no_grad():
        layer.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="weights after step 3 are not finite: type a lower optimizer.lr"):
        NonfiniteGuard.check_weights(layer.parameters(), 3, tmp_path)
