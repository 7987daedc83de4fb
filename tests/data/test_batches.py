"""Batches: every image once, the same order for the same seed, exact draws, exact continuation."""

from itertools import islice

import pytest
import torch

from vaelab.data.batches import Batches, binarize
from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.errors import UserError


def _numbered(count: int = 103) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose pixel is their number."""
    numbers = torch.arange(count)
    return numbers.to(torch.uint8).view(-1, 1, 1, 1), numbers


def _seen(batches: Batches) -> list[int]:
    return [int(number) for _, labels, _ in batches for number in labels]


def test_every_image_comes_once_and_in_order() -> None:
    batches = Batches(*_numbered(), batch_size=10)
    assert len(batches) == 11
    assert _seen(batches) == list(range(103))
    x, y, shard = next(iter(batches))
    assert shard == Shard.of(10)
    torch.testing.assert_close(x.flatten(), y / 255)
    assert x.dtype == torch.float32


def test_shuffled_order_differs_by_epoch_and_follows_from_the_seed() -> None:
    first, second = Batches(*_numbered(), 10, shuffle=True, seed=3), Batches(*_numbered(), 10, shuffle=True, seed=3)
    epochs = [_seen(first) for _ in range(3)]
    assert [_seen(second) for _ in range(3)] == epochs
    assert all(sorted(epoch) == list(range(103)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert _seen(Batches(*_numbered(), 10, shuffle=True, seed=4)) != epochs[0]


def test_drop_last_leaves_out_partial_batches() -> None:
    batches = Batches(*_numbered(), 10, drop_last=True)
    assert len(batches) == 10
    assert [len(y) for _, y, _ in batches] == [10] * 10
    assert len(Batches(*_numbered(100), 10, drop_last=True)) == 10
    assert len(list(Batches(*_numbered(7), 10, drop_last=True))) == 1  # all there is


def test_an_epoch_left_early_is_not_continued_by_the_next() -> None:
    batches = Batches(*_numbered(), 10, shuffle=True)
    list(islice(batches, 3))
    assert sorted(_seen(batches)) == list(range(103))


@pytest.mark.parametrize("stop", [1, 4, 11])
def test_state_continues_in_the_middle_of_an_epoch(stop: int) -> None:
    images = torch.randint(0, 256, (103, 1, 4, 4), dtype=torch.uint8)
    labels = torch.arange(103)
    whole = Batches(images, labels, 10, shuffle=True, dynamic=True, seed=1)
    expected = [*list(whole), *list(whole)]
    broken = Batches(images, labels, 10, shuffle=True, dynamic=True, seed=1)
    got = list(islice(broken, stop))
    state = broken.state()
    resumed = Batches(images, labels, 10, shuffle=True, dynamic=True, seed=1)
    resumed.resume(state)
    if stop < len(broken):
        got += list(resumed)
    got += list(resumed)
    assert len(got) == len(expected) == 22
    for (x, y, _), (expected_x, expected_y, _) in zip(got, expected, strict=True):
        assert torch.equal(x, expected_x)
        assert torch.equal(y, expected_y)


@pytest.mark.parametrize("count", [103, 100, 101, 2, 61])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_every_batch(count: int, world_size: int, drop_last: bool) -> None:
    """Where there are fewer images than processes, one of them computes an image that counts for nothing."""
    ranks = [
        Batches(*_numbered(count), 10, shuffle=True, drop_last=drop_last, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    whole = [y.tolist() for _, y, _ in Batches(*_numbered(count), 10, shuffle=True, drop_last=drop_last)]
    together: list[list[int]] = [[] for _ in whole]
    for rank in ranks:
        for i, (_, y, shard) in enumerate(rank):
            assert len(y) == max(shard.count, 1)
            assert shard.weight == pytest.approx(shard.count * world_size / len(whole[i]))
            together[i] += y.tolist()[: shard.count]
    assert together == whole


def test_binarization_probabilities_are_exact() -> None:
    images = torch.tensor([0, 1, 64, 128, 254, 255], dtype=torch.uint8).expand(200_000, 6)
    drawn = binarize(images, torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0, 255}
    frequencies = (drawn == 255).double().mean(0)
    p = images[0].double() / 255
    assert ((frequencies - p).abs() <= 5 * (p * (1 - p) / 200_000).sqrt()).all()  # never at 0, always at 255


def test_dynamic_images_are_drawn_anew_at_every_visit() -> None:
    images = torch.full((20, 1, 8, 8), 128, dtype=torch.uint8)
    batches = Batches(images, torch.zeros(20), 20, dynamic=True)
    (first, *_), (second, *_) = next(iter(batches)), next(iter(batches))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)


@pytest.mark.parametrize("world_size", [2, 3])
def test_an_image_is_drawn_the_same_whichever_process_has_it(world_size: int) -> None:
    images = torch.randint(0, 256, (43, 1, 8, 8), dtype=torch.uint8)
    whole = [x for x, *_ in Batches(images, torch.zeros(43), 10, dynamic=True)]
    ranks = [
        Batches(images, torch.zeros(43), 10, dynamic=True, rank=i, world_size=world_size) for i in range(world_size)
    ]
    for i, parts in enumerate(zip(*ranks, strict=True)):
        assert torch.equal(torch.cat([x for x, *_ in parts]), whole[i])


def test_other_batches_cannot_go_on_in_the_middle_of_an_epoch() -> None:
    batches = Batches(*_numbered(), 10, shuffle=True)
    list(islice(batches, 3))
    with pytest.raises(UserError, match="of 10 images and cannot resume there with 20: type data.batch_size=10"):
        Batches(*_numbered(), 20, shuffle=True).resume(batches.state())
