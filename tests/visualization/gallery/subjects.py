"""Models that were not trained, with random images of some data set."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import tiny_vae
from vaelab.data.source import Images
from vaelab.models.likelihoods import SquaredError
from vaelab.runs.trained_model import TrainedModel


def subject(
    count: int = 40,
    classes: tuple[str, ...] = ("a", "b", "c"),
    shape: tuple[int, int, int] = (1, 4, 4),
    latent_dim: int = 2,
    factors: Tensor | None = None,
    factor_names: tuple[str, ...] = (),
) -> TrainedModel:
    """A model that was not trained, and random images of some data set."""
    images = Images(
        torch.randint(0, 256, (count, *shape), dtype=torch.uint8), torch.arange(count) % len(classes), factors
    )
    source = SimpleNamespace(name="random", classes=classes, factor_names=factor_names)
    datamodule: Any = SimpleNamespace(
        splits={"train": images, "test": images}, source=source, is_binary=False, binarization="none"
    )
    return TrainedModel(tiny_vae(SquaredError(), shape, latent_dim).eval(), datamodule)


def noted(model: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The latents that are decoded from here on."""
    latents: list[Tensor] = []
    decode = model.decode

    def noting(z: Tensor, y: Tensor | None = None) -> Tensor:
        latents.append(z)
        return decode(z, y)

    monkeypatch.setattr(model, "decode", noting)
    return latents
