"""Distributions over pixels against quadrature, sums and double precision."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vaelab.models.distributions.pixels import ContinuousBernoulli, DiscretizedLogistic

_POSITIVE = torch.tensor([1e-30, 1e-6, 1e-3, 0.1, 0.9, 0.99999, 1.00001, 1.5, 4.0, 16.0, 30.0, 90.0, 1e4, 1e8])
LOGITS = torch.cat([-_POSITIVE.flip(0), torch.zeros(1), _POSITIVE])


def _exact(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log of the integral of exp(l t) over [0, 1], its mean and its variance: by quadrature in double precision.

    In the variable u = |l| (distance to the likelier end), of which forty are as good as infinity.
    """
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(100))
    size = logits.double().abs().clamp(min=1e-30).unsqueeze(-1)
    reach = (40 / size).clamp(max=1)
    distance = reach * (nodes + 1) / 2
    density = (-size * distance).exp() * weights * reach / 2
    normalizer = density.sum(-1)
    mean = (density * distance).sum(-1) / normalizer
    variance = (density * (distance - mean.unsqueeze(-1)).square()).sum(-1) / normalizer
    return normalizer.log() + logits.double().relu(), torch.where(logits > 0, 1 - mean, mean), variance


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_continuous_bernoulli_is_exact_for_every_logit(x: float) -> None:
    logits = LOGITS.clone().requires_grad_()
    p = ContinuousBernoulli(logits)
    log_normalizer, mean, variance = _exact(LOGITS)
    torch.testing.assert_close(p.mean.double(), mean, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(p.variance.double(), variance, atol=0, rtol=1e-5)
    log_prob = p.log_prob(torch.tensor(x))
    errors = log_prob.double() - (x * LOGITS.double() - log_normalizer)
    assert (errors.abs() < 1e-6 + torch.finfo(torch.float32).eps * LOGITS.abs()).all()  # a rounding of the logit
    (gradient,) = torch.autograd.grad(log_prob.sum(), logits)
    torch.testing.assert_close(gradient.double(), x - mean, atol=2e-7, rtol=1e-6)


def test_the_mean_of_the_continuous_bernoulli_has_the_variance_as_its_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    p = ContinuousBernoulli(logits)
    (gradient,) = torch.autograd.grad(p.mean.sum(), logits)
    torch.testing.assert_close(gradient, p.variance.detach(), atol=2e-7, rtol=1e-5)


def test_samples_of_the_continuous_bernoulli_have_its_distribution_function() -> None:
    """log (1 + F(x) (exp(l) - 1)) = l x, at five quantiles of each."""
    logits = torch.tensor([-40.0, -3.0, -1e-3, 0.0, 1e-9, 0.5, 40.0])
    samples = ContinuousBernoulli(logits).sample(torch.Size((100_000,))).double()
    assert samples.min() >= 0
    assert samples.max() <= 1
    for probability in (0.02, 0.25, 0.5, 0.75, 0.98):
        wide = logits.double()
        quantile = torch.where(wide.abs() < 1e-6, probability, torch.log1p(probability * torch.expm1(wide)) / wide)
        error = 5 * (probability * (1 - probability) / 100_000) ** 0.5
        assert (((samples <= quantile).double().mean(0) - probability).abs() < error).all()


def _logistic() -> DiscretizedLogistic:
    """All of them, from a scale far below a level to one far above white."""
    location, scale = torch.meshgrid(
        torch.tensor([0.0, 0.001, 0.3, 0.5, 100.4 / 255, 0.999, 1.0]),
        torch.tensor([1 / 8160, 1 / 510, 0.02, 0.1, 1.0, 16.0]),
        indexing="ij",
    )
    return DiscretizedLogistic(location, scale)


def _probabilities(p: DiscretizedLogistic) -> Tensor:
    """Of all levels, first dimension, in double precision and by the difference of distribution functions."""
    edges = ((torch.arange(257).double() - 0.5) / 255).view(-1, 1, 1)
    edges[0], edges[-1] = -torch.inf, torch.inf
    return torch.sigmoid((edges - p.location.double()) / p.scale.double()).diff(dim=0)


def test_the_levels_of_the_discretized_logistic_have_its_probabilities_and_sum_to_one() -> None:
    p = _logistic()
    probabilities = p.log_prob((torch.arange(256) / 255).view(-1, 1, 1)).double().exp()
    torch.testing.assert_close(probabilities.sum(0), torch.ones_like(probabilities[0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(probabilities, _probabilities(p), atol=1e-6, rtol=1e-3)


def test_the_moments_of_the_discretized_logistic_are_those_of_its_levels() -> None:
    p = _logistic()
    probabilities, levels = _probabilities(p), (torch.arange(256).double() / 255).view(-1, 1, 1)
    mean = (probabilities * levels).sum(0)
    torch.testing.assert_close(p.mean.double(), mean, atol=2e-6, rtol=0)
    torch.testing.assert_close(
        p.variance.double(), (probabilities * (levels - mean).square()).sum(0), atol=2e-6, rtol=1e-4
    )
    at_mode = probabilities.gather(0, (255 * p.mode).round().long().unsqueeze(0)).squeeze(0)
    torch.testing.assert_close(at_mode, probabilities.amax(0), atol=0, rtol=1e-4)


def test_levels_far_out_keep_their_digits() -> None:
    """There F(b) - F(a) is exp(-d / s) of the distance d to the nearer edge, and zero in single precision."""
    p = DiscretizedLogistic(torch.tensor(0.5), torch.tensor(1 / 8160))
    levels = torch.tensor([1, 10, 60, 200, 254]) / 255
    expected = -((levels - 0.5).abs() - 1 / 510) * 8160
    torch.testing.assert_close(p.log_prob(levels), expected, atol=1e-3, rtol=1e-6)


def test_both_ends_of_the_discretized_logistic_are_open() -> None:
    location = torch.tensor([-30.0, 40.0])
    p = DiscretizedLogistic(location, torch.tensor(1.0))
    torch.testing.assert_close(p.log_prob(torch.tensor([0.0, 1.0])), torch.zeros(2))
    torch.testing.assert_close(p.mode, torch.tensor([0.0, 1.0]))
