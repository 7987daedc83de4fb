"""Densities and divergences against torch.distributions, quadrature and Monte Carlo."""

import math

import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaelab.models.distributions.latents import (
    DiagonalGaussian,
    FullGaussian,
    Mixture,
    StandardNormal,
    active_units,
    dimension_kls,
)
from vaelab.models.distributions.pixels import UnnormalizedGaussian


def _gaussian(batch: int = 5, size: int = 3) -> DiagonalGaussian:
    return DiagonalGaussian(torch.randn(batch, size), 0.5 * torch.randn(batch, size))


def _reference(q: DiagonalGaussian) -> Independent:
    return Independent(Normal(q.mean, q.stddev), 1)


def test_diagonal_gaussian_is_torchs() -> None:
    q = _gaussian()
    value = torch.randn(7, 5, 3)
    torch.testing.assert_close(q.log_prob(value), _reference(q).log_prob(value))
    torch.testing.assert_close(q.entropy(), _reference(q).entropy())
    torch.testing.assert_close(q.variance, _reference(q).variance)
    assert q.batch_shape == (5,)
    assert q.event_shape == (3,)


def test_samples_have_the_stated_moments() -> None:
    q = _gaussian()
    samples = q.sample((200_000,))
    torch.testing.assert_close(samples.mean(0), q.mean, atol=0.02, rtol=0.02)
    torch.testing.assert_close(samples.var(0), q.variance, atol=0.02, rtol=0.02)


def test_rsample_carries_gradients() -> None:
    mean, log_std = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    DiagonalGaussian(mean, log_std).rsample((4,)).square().sum().backward()
    assert mean.grad is not None
    assert mean.grad.abs().sum() > 0
    assert log_std.grad is not None
    assert log_std.grad.abs().sum() > 0


def test_standard_normal_density_integrates_to_one() -> None:
    grid = torch.linspace(-8, 8, 2001).unsqueeze(1)
    density = StandardNormal(torch.zeros(1)).log_prob(grid).exp()
    torch.testing.assert_close(torch.trapezoid(density, grid[:, 0]), torch.tensor(1.0))


def test_kl_is_torchs() -> None:
    q, p = _gaussian(), _gaussian()
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(_reference(q), _reference(p)))
    standard = StandardNormal(torch.zeros(3))
    torch.testing.assert_close(kl_divergence(q, standard), kl_divergence(_reference(q), _reference(standard)))


def test_monte_carlo_kl_tends_to_the_closed_form() -> None:
    q, p = _gaussian(), StandardNormal(torch.zeros(3))
    z = q.sample((400_000,))
    estimate = q.log_prob(z) - p.log_prob(z)
    error = 5 * estimate.std(0) / 400_000**0.5
    assert ((estimate.mean(0) - kl_divergence(q, p)).abs() < error).all()


def test_unnormalized_gaussian_is_a_gaussian_but_for_its_constant() -> None:
    mean, weight = torch.rand(3, 1, 4, 4), 0.5
    p = UnnormalizedGaussian(mean, weight)
    gaussian = Independent(Normal(mean, (2 * weight) ** -0.5), 3)
    x = torch.rand(2, 3, 1, 4, 4)
    differences = p.log_prob(x) - gaussian.log_prob(x)
    torch.testing.assert_close(differences, differences[0, 0].expand(2, 3))
    assert differences[0, 0] > 1  # so it is not normalised
    torch.testing.assert_close(p.sample((100_000,)).var(0), p.variance, atol=0.05, rtol=0.05)


def test_samples_of_a_narrow_gaussian_know_their_density() -> None:
    """A sample that rounds to the mean does not tell the noise that it came from."""
    for log_std in (-18.0, -100.0):
        mean, scale = torch.full((1000, 3), 1.3), torch.full((1000, 3), log_std, requires_grad=True)
        _, log_q = DiagonalGaussian(mean, scale).rsample_and_log_prob()
        log_q.sum().backward()
        expected = -3 * (0.5 * (1 + math.log(2 * math.pi)) + log_std)
        assert abs(log_q.mean().item() - expected) < 5 * (1.5 / 1000) ** 0.5
        assert scale.grad is not None
        torch.testing.assert_close(scale.grad, torch.full_like(scale.grad, -1.0))


def test_samples_and_densities_come_together() -> None:
    q = _gaussian()
    torch.manual_seed(4)
    z = q.rsample((5,))
    torch.manual_seed(4)
    z_too, log_q = q.rsample_and_log_prob((5,))
    torch.testing.assert_close(z, z_too)
    torch.testing.assert_close(log_q, q.log_prob(z), atol=1e-4, rtol=1e-4)


def test_active_units_vary() -> None:
    codes = torch.randn(1000, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0])
    assert active_units(codes).tolist() == [True, True, False, False]


def test_the_kls_of_single_dimensions_add_up() -> None:
    q_z = DiagonalGaussian(torch.randn(5, 3), 0.3 * torch.randn(5, 3))
    kls = dimension_kls(q_z, StandardNormal(torch.zeros(3)))
    assert kls is not None
    torch.testing.assert_close(kls.sum(1), kl_divergence(q_z, StandardNormal(torch.zeros(3))))


def test_a_covariance_costs_more_than_its_dimensions() -> None:
    tril = torch.eye(3) + 0.5 * torch.ones(3, 3).tril(-1)
    q_z = FullGaussian(torch.randn(5, 3), tril.expand(5, 3, 3))
    kls = dimension_kls(q_z, StandardNormal(torch.zeros(3)))
    assert kls is not None
    assert (kls.sum(1) < kl_divergence(q_z, StandardNormal(torch.zeros(3)))).all()


def test_there_are_no_dimensions_where_there_is_no_closed_form() -> None:
    q_z = DiagonalGaussian(torch.randn(5, 3), torch.zeros(5, 3))
    components = DiagonalGaussian(torch.randn(2, 3), torch.zeros(2, 3))
    assert dimension_kls(q_z, Mixture(torch.zeros(2), components)) is None


def test_the_marginals_of_a_covariance_are_its_diagonal() -> None:
    tril = torch.eye(3) + 0.5 * torch.ones(3, 3).tril(-1)
    q_z = FullGaussian(torch.randn(5, 3), tril.expand(5, 3, 3))
    assert q_z.marginals().batch_shape == (5, 3)
    variances = (tril @ tril.T).diagonal().expand(5, 3)
    torch.testing.assert_close(q_z.marginals().variance.squeeze(-1), variances)
    torch.testing.assert_close(q_z.marginals().mean.squeeze(-1), q_z.mean)
