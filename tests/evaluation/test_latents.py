"""What is read from latent space, against closed forms."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.distributions import kl_divergence

from tests.conftest import tiny_vae
from tests.evaluation.grey import grey_module
from vaelab.evaluation.disentanglement import dci, mutual_information_gap
from vaelab.evaluation.latent_space import aggregate, linear_probe, measure, nearest_neighbour_accuracy
from vaelab.models.distributions import latents
from vaelab.models.distributions.latents import DiagonalGaussian
from vaelab.models.likelihoods import Bernoulli
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import NotApplicable


def _standard(size: int) -> latents.StandardNormal:
    return latents.StandardNormal(torch.zeros(size))


def test_posteriors_far_apart_tell_which_image_it_was() -> None:
    q_z = DiagonalGaussian(100.0 * torch.arange(8.0)[:, None].expand(8, 2), torch.zeros(8, 2))
    information, divergence = aggregate(q_z, _standard(2), "")
    torch.testing.assert_close(information, torch.full((8,), math.log(8)), atol=1e-3, rtol=0)
    assert float((information + divergence).mean()) > 1000


def test_posteriors_that_are_all_the_same_tell_nothing() -> None:
    q_z = DiagonalGaussian(torch.full((2000, 2), 0.5), torch.full((2000, 2), -0.3))
    information, divergence = aggregate(q_z, _standard(2), "")
    torch.testing.assert_close(information, torch.zeros(2000), atol=1e-4, rtol=0)
    exact = float(kl_divergence(q_z, _standard(2)).mean())
    assert float(divergence.mean()) == pytest.approx(exact, abs=4 * float(divergence.std()) / 2000**0.5)


def test_classes_are_read_from_codes_that_tell_them_apart() -> None:
    labels = torch.arange(300) % 3
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    train, test = (centres[labels] + torch.randn(300, 2) for _ in range(2))
    assert linear_probe(train, labels, test, labels) > 0.97
    assert nearest_neighbour_accuracy(train, labels, test, labels) > 0.97
    ring = torch.randn(300, 2)
    ring = ring / ring.norm(dim=1, keepdim=True) * (1 + 3 * labels[:, None])  # classes around each other
    assert nearest_neighbour_accuracy(ring, labels, ring, labels) > 0.95
    assert linear_probe(ring, labels, ring, labels) < 0.7
    noise = torch.randn(300, 2)
    assert linear_probe(noise, labels, torch.randn(300, 2), labels) < 0.5


def test_of_a_single_class_in_training_that_class_is_read() -> None:
    train, test = torch.randn(20, 2), torch.randn(10, 2)
    labels = torch.tensor([3, 3, 3, 1, 1, 1, 1, 1, 1, 1])
    assert linear_probe(train, torch.full((20,), 3), test, labels) == 0.3
    assert nearest_neighbour_accuracy(train, torch.full((20,), 3), test, labels) == 0.3


def test_the_probe_is_the_least_of_the_cross_entropy_and_its_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one code with values -1 and 1 and symmetric labels, whose weight has one equation."""
    codes = torch.tensor([[-1.0], [1.0]]).repeat(50, 1)
    labels = (codes[:, 0] > 0).long()
    fitted = []
    fit = LogisticRegression.fit

    def watched(self: LogisticRegression, *data: object) -> LogisticRegression:
        fitted.append(self)
        return fit(self, *data)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    assert linear_probe(codes, labels, codes, labels) == 1
    (weight,) = fitted[0].coef_[0]
    # Two classes have one weight in scikit-learn: d/dw of log(1 + exp(-w)) + 0.0001 w^2 is 0.
    assert -1 / (1 + math.exp(weight)) + 2e-4 * weight == pytest.approx(0, abs=1e-4)  # its tolerance


def test_of_two_votes_that_tie_the_nearest_counts() -> None:
    train, labels = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([1, 0, 0, 1])
    assert nearest_neighbour_accuracy(train, labels, torch.tensor([[-1.0]]), torch.tensor([1]), k=2) == 1
    assert nearest_neighbour_accuracy(train, labels, torch.tensor([[4.0]]), torch.tensor([1]), k=4) == 1
    # One of a third class is nearest, then two of the second and two of the first.
    train, labels = torch.arange(1.0, 6.0)[:, None], torch.tensor([2, 1, 0, 0, 1])
    assert nearest_neighbour_accuracy(train, labels, torch.tensor([[0.0]]), torch.tensor([1]), k=5) == 1


def test_measure_has_every_figure_and_leaves_the_model_alone() -> None:
    vae = tiny_vae(Bernoulli(), latent_dim=2).train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    subject = TrainedModel(vae, grey_module((1, 4, 4)))
    measured = measure(subject, None, 20)
    assert set(measured.metrics) == {
        "active_units",
        "mutual_information_lower_bound",
        "aggregate_kl_upper_bound",
        "linear_probe_accuracy",
        "nearest_neighbours_accuracy",
        "mig",
        "dci_disentanglement",
        "dci_completeness",
        "dci_informativeness",
    }
    kl = kl_divergence(subject.posterior(subject.test), vae.p_z()).mean().item()
    assert sum(measured.arrays["dimension_kls"]) == pytest.approx(kl, rel=1e-5)
    assert len(measured.arrays["dimension_kls"]) == 2
    assert set(measured.plots) == {"dimensions"}
    assert measured.metrics["mutual_information_lower_bound"].value <= math.log(20) + 1e-6
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    assert vae.training


def test_what_a_data_set_is_too_small_for() -> None:
    vae = tiny_vae(Bernoulli(), latent_dim=2)
    with pytest.raises(NotApplicable, match="grey has a single test image"):
        measure(TrainedModel(vae, grey_module((1, 4, 4), tested=1)), None, 20)
    module = grey_module((1, 4, 4))
    module.splits = {
        name: images._replace(factors=images.factors[:, :1])  # type: ignore[index]
        for name, images in module.splits.items()
    }
    module.source.factor_names = ("brightness",)  # type: ignore[attr-defined]
    figures = measure(TrainedModel(vae, module), None, 20).metrics
    assert "mig" in figures
    assert not any(name.startswith("dci") for name in figures)


def test_what_says_nothing_is_zero_and_a_number() -> None:
    """Codes that are all the same, a factor that never varies, one dimension."""
    factors = torch.stack([torch.rand(100), torch.ones(100)], 1)
    assert mutual_information_gap(torch.zeros(100, 2), factors).tolist() == [0, 0]
    assert all(
        math.isfinite(value) for value in dci(torch.zeros(100, 2), factors, torch.zeros(100, 2), factors).values()
    )
    one = measure(TrainedModel(tiny_vae(Bernoulli(), latent_dim=1), grey_module((1, 4, 4))), None, 20).metrics
    assert "mig" not in one
    assert all(math.isfinite(figure.value) for figure in one.values())
