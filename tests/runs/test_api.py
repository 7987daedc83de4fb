"""A trained model from Python: arrays in, arrays out."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vaelab
from tests.conftest import ROOT
from vaelab.runs import checkpoint
from vaelab.runtime.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)


def test_arrays_in_and_arrays_out(finished_run: Path) -> None:
    state = torch.get_rng_state()
    model = vaelab.load(finished_run)
    codes = model.encode(IMAGES)
    assert codes.shape == (7, 2)
    pictures = model.reconstruct(IMAGES)
    assert pictures.shape == (7, 1, 28, 28)
    assert pictures.dtype == np.float32
    assert 0 <= pictures.min() <= pictures.max() <= 1
    np.testing.assert_allclose(model.decode(codes), pictures, atol=1e-6)
    np.testing.assert_allclose(model.encode(IMAGES[:, None] / 255), codes, atol=1e-5)
    np.testing.assert_array_equal(model.sample(3, seed=5), model.sample(3, seed=5))
    assert not np.array_equal(model.sample(3, seed=5), model.sample(3, seed=6))
    np.testing.assert_allclose(model.sample(2, temperature=0), model.decode(np.zeros((2, 2))), atol=1e-6)
    few, many = model.score(IMAGES, samples=1), model.score(IMAGES, samples=200)
    assert few.shape == (7,)
    assert many.mean() > few.mean()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_network_s_own_values(finished_run: Path) -> None:
    model = vaelab.load(finished_run / "checkpoints" / "best.ckpt")
    with torch.no_grad():
        x = torch.tensor(IMAGES[:, None]).float() / 255
        expected = model.vae.encode(x).centre.numpy()
    np.testing.assert_array_equal(model.encode(IMAGES), expected)


def test_a_conditional_model_needs_labels_and_cuts_grey_at_one_half(finished_conditional_run: Path) -> None:
    model = vaelab.load(finished_conditional_run)
    labels = np.arange(7)
    binary = (IMAGES > 127).astype(np.float32)
    np.testing.assert_array_equal(model.encode(IMAGES, labels), model.encode(binary, labels))
    assert not np.array_equal(model.encode(IMAGES, labels), model.encode(IMAGES, labels[::-1]))
    np.testing.assert_array_equal(model.sample(12), model.sample(12, labels=np.arange(12) % 10))
    for wrong in (None, labels[:3], labels + 5):
        with pytest.raises(UserError, match="a label from 0 to 9 for each of 7"):
            model.encode(IMAGES, wrong)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (IMAGES[:, :20], r"images have shape \(7, 1, 20, 28\), not \(N, 1, 28, 28\)"),
        (IMAGES[0], r"images have shape \(28, 28\)"),
        (IMAGES.astype(np.int64), "images are int64, not bytes"),
        (IMAGES.astype(np.float64), "images are float64, not bytes from 0 to 255 or floats from 0 to 1"),
        (np.full((1, 28, 28), np.nan), "not bytes from 0 to 255 or floats from 0 to 1"),
    ],
)
def test_what_are_no_images(finished_run: Path, images: np.ndarray, said: str) -> None:
    with pytest.raises(UserError, match=said):
        vaelab.load(finished_run).encode(images)


def test_what_are_no_latents_and_no_run(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"latents have shape \(4, 3\), not \(N, 2\)"):
        vaelab.load(finished_run).decode(np.zeros((4, 3)))
    with pytest.raises(UserError, match="does not exist"):
        vaelab.load(tmp_path / "none")


def test_the_readme_s_example(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (ROOT / "README.md").read_text()
    example = readme.partition("```python\n")[2].partition("```")[0]
    assert "vaelab.load" in example
    monkeypatch.setattr(checkpoint, "ROOT", tmp_path)
    (tmp_path / "logs" / "train").mkdir(parents=True)
    (tmp_path / "logs" / "train" / "latest").symlink_to(finished_run)
    monkeypatch.chdir(tmp_path)
    names: dict[str, np.ndarray] = {}
    exec(example, names)
    assert names["images"].shape == (16, 1, 28, 28)
    assert names["codes"].shape == (16, 2)
