"""What is kept of latent space: of models and images of every kind, and nothing that does not fit together."""

import io
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import tiny_vae
from vaelab.data.source import Images
from vaelab.models.likelihoods import SquaredError
from vaelab.models.networks.mlp import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import InverseAutoregressiveFlow
from vaelab.models.priors import StandardNormal
from vaelab.models.vae import VAE
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.report import latent_space
from vaelab.visualization.report.charts import latent_section
from vaelab.visualization.report.images import ReportFolder


def _subject(
    shape: tuple[int, int, int] = (1, 6, 4), latent_dim: int = 4, count: int = 30, classes: tuple[str, ...] = ("a", "b")
) -> TrainedModel:
    """A model that was not trained, and random images."""
    images = Images(
        torch.randint(0, 256, (count, *shape), dtype=torch.uint8), torch.arange(count) % max(len(classes), 1)
    )
    source = SimpleNamespace(classes=classes)
    datamodule: Any = SimpleNamespace(splits={"test": images}, source=source, binarization="none")
    return TrainedModel(tiny_vae(SquaredError(), shape, latent_dim).eval(), datamodule)


def _tiles(arrays: latent_space.Arrays, name: str) -> np.ndarray:
    """The pictures of a sheet, one after the other."""
    height, width = arrays["tile"]
    sheet = np.asarray(Image.open(io.BytesIO(arrays[name].tobytes())).convert("RGB"))
    columns = int(arrays["columns"])
    places = (divmod(i, columns) for i in range(len(arrays["numbers"])))
    return np.stack([sheet[r * height : (r + 1) * height, c * width : (c + 1) * width] for r, c in places])


def test_what_is_kept_is_read_again_and_belongs_together(tmp_path: Path) -> None:
    subject = _subject()
    latent_space.write(subject, tmp_path / "latents.npz", limit=20)
    arrays = latent_space.read(tmp_path / "latents.npz")
    images = subject.images("test", 20)
    assert arrays["numbers"].tolist() == [30 * i // 20 for i in range(20)]
    assert np.array_equal(_tiles(arrays, "images")[..., 0], images.images[:, 0].numpy())  # grey: exact
    with torch.no_grad():
        q_z = subject.posterior(images)
        pictures = subject.vae.reconstruct(images.images.float() / 255)
    errors = (pictures - images.images.float() / 255).square().mean((1, 2, 3))
    assert np.allclose(arrays["errors"], errors.numpy(), atol=1e-6)
    kl = torch.distributions.kl_divergence(q_z, subject.vae.p_z()).mean()
    assert arrays["kls"].sum() == pytest.approx(float(kl), rel=1e-5)
    names = arrays["axes"].tolist()
    for i in range(4):
        assert np.allclose(arrays["positions"][:, names.index(f"z{i + 1}")], q_z.mean[:, i], atol=1e-6)
    assert names[0].startswith("component 1, ")
    assert [path.name for path in tmp_path.iterdir()] == ["latents.npz"]


@pytest.mark.parametrize(("latent_dim", "first"), [(1, ["z1", "class, spread out"]), (2, ["z1", "z2"])])
def test_few_dimensions_are_shown_as_they_are(latent_dim: int, first: list[str]) -> None:
    arrays = latent_space.gather(_subject(latent_dim=latent_dim), 2000)
    assert arrays["axes"].tolist()[:2] == first
    assert arrays["positions"].shape == (30, len(arrays["axes"]))


def test_large_colour_images_become_small_and_fewer() -> None:
    arrays = latent_space.gather(_subject((3, 96, 48), count=2000), 2000)
    assert arrays["tile"].tolist() == [64, 32]
    assert len(arrays["numbers"]) == len(arrays["labels"]) == 1448**2 // (64 * 32)
    assert _tiles(arrays, "images").shape[1:] == (64, 32, 3)
    assert sum(arrays[name].nbytes for name in ("images", "reconstructions")) < 2e6


def test_a_flow_has_no_divergence_of_single_dimensions_and_the_page_says_so(tmp_path: Path) -> None:
    subject = _subject(classes=())
    encoder, decoder = partial(MLPEncoder, hidden_sizes=[8]), partial(MLPDecoder, hidden_sizes=[8])
    posterior = partial(InverseAutoregressiveFlow, steps=1)
    flow = VAE((1, 6, 4), 4, encoder, decoder, SquaredError(), StandardNormal, posterior).eval()
    latent_space.write(TrainedModel(flow, subject.datamodule), tmp_path / "latents.npz")
    arrays = latent_space.read(tmp_path / "latents.npz")
    assert "kls" not in arrays
    assert not any("variances" in name for name in arrays["axes"])
    section = latent_section(ReportFolder(tmp_path))
    assert [block.kind for block in section.blocks] == ["plot", "note"]
    assert "no closed form" in section.blocks[1].values["text"]
    assert [colour["name"] for colour in section.blocks[0].values["data"]["colours"]] == ["reconstruction error"]


def test_an_old_file_does_not_outlive_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "latents.npz"
    path.write_text("of other weights")

    def broken(*_: Any) -> None:
        raise NotApplicable

    monkeypatch.setattr(latent_space, "gather", broken)
    with pytest.raises(NotApplicable):
        latent_space.write(_subject(), path)
    assert not path.exists()
