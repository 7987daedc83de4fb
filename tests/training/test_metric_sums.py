"""Means over images, whatever the sizes of batches and the number of processes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vaelab.training.metric_sums import MetricSums, sums_of


class _Alone:
    """The strategy of a training with one process."""

    def reduce(self, values: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        return values


class _Beside(_Alone):
    """The strategy of the first of two processes, of which the other has this table."""

    def __init__(self, other: Tensor) -> None:
        self.other = other

    def reduce(self, values: Tensor, reduce_op: str) -> Tensor:
        return values + self.other


def _added(by_batch: bool, batches: list[Tensor]) -> MetricSums:
    sums = MetricSums(by_batch)
    for values in batches:
        sums.add(["a", "b"], sums_of({"a": values, "b": 2 * values.mean()}, len(values)), len(values))
    return sums


@pytest.mark.parametrize("by_batch", [True, False])
def test_the_mean_is_over_images_and_not_over_batches(by_batch: bool) -> None:
    batches = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0])]
    sums = _added(by_batch, batches)
    table = sums.table(_Alone())
    assert table.shape == (2 if by_batch else 1, 3)
    assert sums.means(table) == pytest.approx({"a": 4.0, "b": 8.0})


def test_an_image_that_belongs_to_another_process_does_not_count() -> None:
    sums = _added(True, [torch.tensor([1.0])])
    sums.add(["a", "b"], torch.tensor([100.0, 100.0]), 0)
    assert sums.means(sums.table(_Alone())) == pytest.approx({"a": 1.0, "b": 2.0})


def test_processes_are_added_up() -> None:
    first, second = _added(True, [torch.tensor([1.0, 3.0])]), _added(True, [torch.tensor([8.0])])
    table = first.table(_Beside(second.table(_Alone())))
    assert first.means(table) == pytest.approx({"a": 4.0, "b": 8.0})


def test_a_table_is_restored_once_for_all_processes() -> None:
    rows = list(_added(True, [torch.tensor([1.0, 3.0]), torch.tensor([5.0])]).table(_Alone()))
    restored: list[Any] = []
    for is_first in (True, False):
        sums = MetricSums(by_batch=True)
        sums.restore(rows, torch.device("cpu"), is_first)
        sums.names = ["a", "b"]
        restored.append(sums.table(_Alone()))
    assert torch.equal(sum(restored), torch.stack(rows))


def test_nothing_is_left_after_clearing() -> None:
    sums = _added(True, [torch.tensor([1.0])])
    sums.clear()
    assert len(sums) == 0
