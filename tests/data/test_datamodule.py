"""Splits, binarisation and refusals of the data module."""

from typing import Any

import pytest
import torch

from vaelab.data import datamodule
from vaelab.data.datamodule import ImageDataModule
from vaelab.data.source import Images
from vaelab.runtime.errors import UserError


class Grey:
    """Random grey images, numbered by their labels."""

    name = "grey"
    classes: tuple[str, ...] = ("one",)

    def prepare(self) -> None:
        pass

    def load(self, train: bool) -> Images:
        count = 60 if train else 40
        generator = torch.Generator().manual_seed(int(train))
        images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
        return Images(images, torch.arange(count) + (0 if train else 1000))


def _module(**options: Any) -> ImageDataModule:
    module = ImageDataModule(Grey(), [1, 8, 8], **{"validation": 10, "batch_size": 16, **options})
    module.setup()
    return module


def test_validation_is_carved_from_training_images_and_test_is_test() -> None:
    splits = _module().splits
    assert splits["train"].labels.tolist() == list(range(50))
    assert splits["val"].labels.tolist() == list(range(50, 60))
    assert splits["test"].labels.tolist() == list(range(1000, 1040))


def test_validation_on_test_images_trains_on_all_training_images() -> None:
    for binarize in ("none", "static"):
        splits = _module(validation="test", binarize=binarize).splits
        assert len(splits["train"].labels) == 60
        assert torch.equal(splits["val"].images, splits["test"].images)


def test_validation_can_be_a_fraction() -> None:
    assert len(_module(validation=0.25).splits["val"].labels) == 15
    assert len(_module(validation=0.001).splits["val"].labels) == 1


def test_limit() -> None:
    assert [len(split.labels) for split in _module(limit=7).splits.values()] == [7, 7, 7]


def test_threshold_is_above_one_half() -> None:
    images = Grey().load(train=False).images
    expected = (images.double() / 255 > 0.5).float()
    module = _module(binarize="threshold")
    torch.testing.assert_close(module.splits["test"].images.float() / 255, expected)
    assert module.is_binary


@pytest.mark.parametrize("binarize", ["dynamic", "static"])
def test_evaluation_images_are_drawn_once_for_every_seed(binarize: str) -> None:
    first, second = _module(binarize=binarize, seed=0), _module(binarize=binarize, seed=1)
    for split in ("val", "test"):
        assert torch.equal(first.splits[split].images, second.splits[split].images)
        assert set(first.splits[split].images.unique().tolist()) == {0, 255}


def test_only_dynamic_training_images_change() -> None:
    static, dynamic = _module(binarize="static", shuffle=False), _module(binarize="dynamic", shuffle=False)
    for module, same in ((static, True), (dynamic, False)):
        batches = module.train_dataloader()
        first, second = (torch.cat([x for x, *_ in batches]) for _ in range(2))
        assert set(first.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(first, second) is same


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: it must be a positive integer; type e.g. batch_size=128"),
        ({"batch_size": "many"}, "batch_size=many: it must be a positive integer"),
        ({"limit": 0}, "limit=0: it must be a positive integer or null"),
        ({"validation": 0}, "validation=0: it must be a positive integer, a number above 0 and below 1 or test"),
        ({"validation": 1.0}, "validation=1.0: it must be"),
        ({"validation": 60}, "leaves none of grey's 60 training images"),
        ({"binarize": "sometimes"}, "it must be none, threshold, dynamic or static"),
        ({"image_shape": [1, 28, 28]}, r"type 'data.image_shape=\[1,8,8\]'"),
    ],
)
def test_impossible_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageDataModule(Grey(), **{"image_shape": [1, 8, 8], "validation": 10, **options}).setup()


def test_images_stay_on_the_host_where_they_would_fill_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(10, 1, 4, 4, dtype=torch.uint8)
    for free, fits in ((320, True), (319, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 1000))
        assert datamodule._fits(images, torch.device("cuda")) == fits
        assert datamodule._fits(images, torch.device("cpu"))


@pytest.mark.parametrize("validation", [2, 1000, 0.1, 0.99])
@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_a_validation_split_of_few_images_is_possible_or_the_suggested_one_is(
    count: int, validation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Grey.load
    monkeypatch.setattr(Grey, "load", lambda self, train: load(self, train).part(slice(count)))
    try:
        module = _module(validation=validation)
    except UserError as error:
        suggested = str(error).partition("type e.g. data.validation=")[2].partition(",")[0]
        module = _module(validation=int(suggested) if suggested.isdigit() else suggested)
    assert len(module.splits["train"].labels) > 0
    assert len(module.splits["val"].labels) > 0
