"""Importance-weighted bounds against closed forms."""

import math

import pytest
import torch

from tests.conftest import tiny_vae
from tests.evaluation.exact import log_likelihood
from tests.evaluation.grey import grey_module
from vaelab.evaluation.likelihood import measure
from vaelab.evaluation.published import published
from vaelab.models.importance import log_weights
from vaelab.models.likelihoods import Bernoulli, DiscretizedLogistic
from vaelab.models.vae import VAE
from vaelab.runs.trained_model import TrainedModel, evenly_spaced
from vaelab.runtime.errors import NotApplicable


@pytest.mark.parametrize("limit", [None, 30])
def test_the_linear_model_s_log_likelihood_is_exact_within_its_error(linear_vae: VAE, limit: int | None) -> None:
    subject = TrainedModel(linear_vae, grey_module((1, 3, 2)))
    measured = measure(subject, 3000, ["train", "test"], limit)
    for split in ("train", "test"):
        images = subject.images(split, limit).images
        exact = log_likelihood(linear_vae, images / 255)
        figure = measured.metrics[f"{split}/log_likelihood, k=3000"]
        assert figure.value == pytest.approx(float(exact.mean()), abs=0.02)
        assert figure.standard_error == pytest.approx(float(exact.std()) / math.sqrt(len(images)), rel=0.02)
        assert figure.unit == "nats"
        rising = [measured.metrics[f"{split}/log_likelihood, k={k}"].value for k in (1, 10, 100, 1000, 3000)]
        assert rising == sorted(rising)
        assert measured.metrics[f"{split}/gap"].value == pytest.approx(rising[-1] - rising[0])
        assert f"{len(images):,}" in figure.note
    assert set(measured.plots) == {"likelihood"}


def test_the_deviation_of_log_weights_is_the_noise_of_a_single_sample(linear_vae: VAE) -> None:
    subject = TrainedModel(linear_vae, grey_module((1, 3, 2)))
    figures = measure(subject, 500, ["test"], None).metrics
    x = subject.images("test").images / 255
    single = torch.stack([log_weights(linear_vae, x, 1)[0] for _ in range(500)])
    expected = float(single.var(0).mean().sqrt())
    assert figures["test/log_weight_deviation"].value == pytest.approx(expected, rel=0.1)


def test_one_image_has_no_standard_error(linear_vae: VAE) -> None:
    figures = measure(TrainedModel(linear_vae, grey_module((1, 3, 2), tested=1)), 10, ["test"], None).metrics
    assert all(figure.standard_error is None and math.isfinite(figure.value) for figure in figures.values())


def test_a_mere_loss_is_not_called_a_likelihood() -> None:
    with pytest.raises(NotApplicable, match=r"not a likelihood of these images.*data\.binarize=dynamic"):
        measure(TrainedModel(tiny_vae(Bernoulli()), grey_module((1, 4, 4))), 10, ["test"], None)


def test_bits_per_dim_are_of_the_largest_k() -> None:
    vae = tiny_vae(DiscretizedLogistic())
    figures = measure(TrainedModel(vae, grey_module((1, 4, 4))), 20, ["val"], None).metrics
    expected = -figures["val/log_likelihood, k=20"].value / (16 * math.log(2))
    assert figures["val/bits_per_dim"].value == pytest.approx(expected)
    assert figures["val/bits_per_dim"].standard_error > 0  # type: ignore[operator]


def test_dynamic_training_images_are_binary_and_the_same_each_time() -> None:
    subject = TrainedModel(tiny_vae(Bernoulli()), grey_module((1, 4, 4), binarize="dynamic"))
    drawn = subject.images("train").images
    assert set(drawn.unique().tolist()) == {0, 255}
    assert torch.equal(drawn, subject.images("train").images)


def test_fewer_images_are_spread_over_the_split() -> None:
    subject = TrainedModel(tiny_vae(Bernoulli()), grey_module((1, 4, 4)))
    every = subject.images("train")
    assert torch.equal(subject.images("train", 5).images, every.images[::10])
    assert torch.equal(subject.images("train", 10_000).images, every.images)
    assert evenly_spaced(10, 4).tolist() == [0, 2, 5, 7]


def test_figures_of_another_split_than_the_official_one_say_so() -> None:
    subject = TrainedModel(tiny_vae(Bernoulli()), grey_module((1, 4, 4)))
    assert "official" not in subject.protocol("test", 10)
    subject.splits["test"] = subject.splits["test"]._replace(is_official=False)
    assert "not the official split" in subject.protocol("test", 10)
    assert "official" not in subject.protocol("train", 10)


def test_published_values_are_of_the_same_data_and_protocol() -> None:
    assert any("-84.45 nats, k=5000" in line for line in published("MNIST", "dynamic"))
    assert any("Larochelle" in line for line in published("MNIST", "static"))
    assert any("-228.70" in line for line in published("FashionMNIST", "dynamic"))
    assert published("MNIST", "threshold") == published("Digits", "dynamic") == []
