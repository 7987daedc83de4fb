"""Posteriors: their densities, samples and divergences against torch.distributions, quadrature and Jacobians."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian
from torch.distributions import MultivariateNormal, kl_divergence

from vaelab.models.distributions import latents
from vaelab.models.distributions.flows import MADE
from vaelab.models.distributions.latents import Latent
from vaelab.models.posteriors import DiagonalGaussian, FullGaussian, InverseAutoregressiveFlow


def _diagonal(*shape: int) -> latents.DiagonalGaussian:
    return latents.DiagonalGaussian(torch.randn(*shape), 0.5 * torch.randn(*shape))


def _full(*shape: int) -> latents.FullGaussian:
    diagonal = torch.diag_embed((0.4 * torch.randn(*shape)).exp())
    return latents.FullGaussian(torch.randn(*shape), diagonal + 0.5 * torch.randn(*shape, shape[-1]).tril(diagonal=-1))


def _reference(q: Latent) -> MultivariateNormal:
    """The same Gaussian by its covariance."""
    if isinstance(q, latents.FullGaussian):
        return MultivariateNormal(q.mean, q.scale_tril @ q.scale_tril.mT)
    return MultivariateNormal(q.mean, torch.diag_embed(q.variance))


def _flow(latent_dim: int, batch: int = 3, steps: int = 3) -> tuple[InverseAutoregressiveFlow, latents.Flow]:
    """A flow away from where it begins, and what it makes of some features."""
    posterior = InverseAutoregressiveFlow(5, latent_dim, steps=steps, context_size=4, hidden_sizes=[12, 12])
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    q = posterior(torch.randn(batch, 5))
    assert isinstance(q, latents.Flow)
    return posterior, q


def test_full_gaussian_is_torchs() -> None:
    q = _full(5, 3)
    reference = _reference(q)
    z = torch.randn(7, 5, 3)
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(q.entropy(), reference.entropy(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(q.variance, reference.variance)
    torch.testing.assert_close(q.centre, reference.mean)
    assert q.batch_shape == (5,)
    assert q.event_shape == (3,)
    other = z.unsqueeze(-2)  # against every one of the batch, as a mixture asks for it
    torch.testing.assert_close(q.log_prob(other), reference.log_prob(other), atol=1e-4, rtol=1e-4)
    assert q.log_prob(other).shape == (7, 5, 5)


def test_full_gaussian_samples_have_its_covariance() -> None:
    q, samples = _full(3), 400_000
    z, log_q = q.rsample_and_log_prob((samples,))
    torch.testing.assert_close(log_q, q.log_prob(z))
    deviations = z - q.mean
    products = deviations[:, :, None] * deviations[:, None, :]  # (samples, 3, 3)
    assert (deviations.mean(0).abs() < 5 * q.stddev / samples**0.5).all()
    assert ((products.mean(0) - _reference(q).covariance_matrix).abs() < 5 * products.std(0) / samples**0.5).all()


def test_full_gaussian_samples_are_not_rounded_in_mixed_precision() -> None:
    q = _full(5, 3)
    torch.manual_seed(1)
    exact = q.rsample((4,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(1)
        assert torch.equal(q.rsample((4,)), exact)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (partial(_diagonal, 5, 3), partial(latents.StandardNormal, torch.zeros(3))),
        (partial(_diagonal, 5, 3), partial(_diagonal, 3)),
        (partial(_full, 5, 3), partial(latents.StandardNormal, torch.zeros(3))),
        (partial(_full, 5, 3), partial(_diagonal, 3)),
        (partial(_full, 5, 3), partial(_diagonal, 5, 3)),
        (partial(_full, 5, 3), partial(_full, 5, 3)),
    ],
)
def test_divergences_are_torchs_and_what_samples_tend_to(q: Callable[[], Latent], p: Callable[[], Latent]) -> None:
    q_z, p_z, samples = q(), p(), 200_000
    analytic = kl_divergence(q_z, p_z)
    assert analytic.shape == (5,)
    torch.testing.assert_close(analytic, kl_divergence(_reference(q_z), _reference(p_z)), atol=1e-4, rtol=1e-4)
    z, log_q = q_z.rsample_and_log_prob((samples,))
    sampled = log_q - p_z.log_prob(z)
    assert ((sampled.mean(0) - analytic).abs() < 5 * sampled.std(0) / samples**0.5).all()


def test_full_gaussian_detached_is_the_same_without_gradients() -> None:
    features = torch.randn(2, 5, requires_grad=True)
    q = FullGaussian(5, 3)(features)
    z = torch.randn(2, 3)
    torch.testing.assert_close(q.detach().log_prob(z), q.log_prob(z))
    assert q.log_prob(z).requires_grad
    assert not q.detach().log_prob(z).requires_grad


def test_full_gaussian_begins_as_a_diagonal_one_and_learns_not_to_be() -> None:
    posterior = FullGaussian(5, 4)
    features = torch.randn(6, 5)
    q = posterior(features)
    assert isinstance(q, latents.FullGaussian)
    torch.testing.assert_close(q.scale_tril, torch.diag_embed(q.scale_tril.diagonal(dim1=-2, dim2=-1)))
    q.rsample().prod(-1).sum().backward()
    assert posterior.head.weight.grad is not None
    assert (posterior.head.weight.grad != 0).all()
    with torch.no_grad():
        posterior.head.weight.normal_()
    below = posterior(features).scale_tril
    assert (below.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert torch.equal(below, below.tril())
    assert (below[:, 1:, 0] != 0).all()


def test_full_gaussian_of_one_dimension_is_the_diagonal_one() -> None:
    full, diagonal = FullGaussian(5, 1), DiagonalGaussian(5, 1, scale="log_std")
    diagonal.load_state_dict(full.state_dict())
    features, z = torch.randn(3, 5), torch.randn(7, 3, 1)
    torch.testing.assert_close(full(features).log_prob(z), diagonal(features).log_prob(z))


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("hidden_sizes", [[], [20], [20, 15], [2]])
def test_made_sees_what_comes_before(backwards: bool, hidden_sizes: list[int]) -> None:
    size = 5
    made = MADE(size, 3, hidden_sizes, "Tanh", backwards)
    u, context = torch.randn(size), torch.randn(3)
    earlier = torch.ones(size, size).tril(-1).bool()
    earlier = earlier.T if backwards else earlier
    for k in range(2):
        by_u = jacobian(lambda vector, k=k: made(vector, context)[k], u)
        assert not by_u[~earlier].any()
        if hidden_sizes != [2]:  # too few to see all
            assert by_u[earlier].all()
        by_context = jacobian(lambda vector, k=k: made(u, vector)[k], context)
        assert (by_context != 0).all()  # also the first, which sees nothing else


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_iaf_inverts_and_knows_its_jacobian(latent_dim: int) -> None:
    posterior, q = _flow(latent_dim)
    u = torch.randn(4, 3, latent_dim)
    with torch.no_grad():
        z, log_det = posterior.transform(u, *q.context)
        torch.testing.assert_close(posterior.transform.inverse(z, *q.context), (u, log_det), atol=1e-5, rtol=1e-5)
        z, log_q = q.rsample_and_log_prob((4,))
        torch.testing.assert_close(q.log_prob(z), log_q, atol=1e-4, rtol=1e-4)
    context = [part[0] for part in q.context]
    matrix = jacobian(lambda vector: posterior.transform(vector, *context)[0], u[0, 0])
    torch.testing.assert_close(torch.linalg.slogdet(matrix).logabsdet, log_det[0, 0], atol=1e-5, rtol=1e-5)
    assert (matrix != 0).all()  # the order of the dimensions turns round, so that each comes to see all


def test_iaf_inverse_carries_the_gradients_of_the_density() -> None:
    """By the chain rule from the way forth: d log q(z(u)) / du is that of log q by z times that of z by u."""
    posterior, q = _flow(3, batch=1)
    u = torch.randn(1, 3)
    with torch.no_grad():
        z = posterior.transform(u, *q.context)[0]
    by_z = jacobian(lambda value: q.log_prob(value).sum(), z)[0]
    by_u = jacobian(lambda value: (q.base.log_prob(value) - posterior.transform(value, *q.context)[1]).sum(), u)[0]
    matrix = jacobian(lambda value: posterior.transform(value, *q.context)[0][0], u)[:, 0]
    torch.testing.assert_close(by_z @ matrix, by_u, atol=1e-4, rtol=1e-4)


def test_iaf_density_is_finite_far_from_its_samples() -> None:
    """A VampPrior asks each of its components for the density of latents that belong to the others."""
    posterior = InverseAutoregressiveFlow(5, 10, hidden_sizes=[20])
    with torch.no_grad():
        for parameter in posterior.transform.parameters():
            parameter.mul_(2)
    log_prob = posterior(torch.randn(4, 5)).log_prob(10 * torch.randn(50, 1, 10))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    for name, parameter in posterior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_iaf_density_integrates_to_one_and_is_that_of_its_samples() -> None:
    _, q = _flow(2, batch=1)
    axis = torch.linspace(-12, 12, 401)
    z = torch.cartesian_prod(axis, axis)[:, None]  # (401^2, 1, 2)
    weights = q.log_prob(z).exp() * (24 / 400) ** 2
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0), atol=2e-3, rtol=0)
    samples = q.sample((100_000,))
    error = 5 * samples.std(0) / 100_000**0.5 + 1e-3
    assert ((samples.mean(0) - (weights[..., None] * z).sum(0)).abs() < error).all()
    expected = (weights * q.log_prob(z)).sum()
    log_q = q.log_prob(samples)
    assert (log_q.mean() - expected).abs() < 5 * log_q.std() / 100_000**0.5 + 1e-3


def test_iaf_is_drawn_by_the_image_of_its_bases_mean() -> None:
    posterior, q = _flow(3)
    torch.testing.assert_close(q.centre, posterior.transform(q.base.mean, *q.context)[0])
    for unknown in ("mean", "variance"):
        with pytest.raises(NotImplementedError):
            getattr(q, unknown)
    with pytest.raises(NotImplementedError):
        q.detach()
    with pytest.raises(NotImplementedError, match="No KL"):
        kl_divergence(q, latents.StandardNormal(torch.zeros(3)))


@torch.no_grad()
def test_iaf_begins_near_the_identity() -> None:
    posterior = InverseAutoregressiveFlow(20, 10, steps=1, hidden_sizes=[128])
    u, context = torch.randn(1000, 10), torch.randn(1000, 64)
    z, log_det = posterior.transform(u, context)
    assert (z - u).square().mean() < 0.05
    assert (log_det - 10 * torch.tensor(2.0).sigmoid().log()).abs().mean() < 0.3  # of gates that are sigmoid(2) open


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (InverseAutoregressiveFlow, {"steps": 0}, "steps=0: it must be a positive integer; type e.g. steps=4"),
        (InverseAutoregressiveFlow, {"context_size": -1}, "context_size=-1: it must be a positive integer"),
        (InverseAutoregressiveFlow, {"hidden_sizes": 64}, "hidden_sizes=64: it must be a list of positive integers"),
        (
            InverseAutoregressiveFlow,
            {"hidden_sizes": [1.5]},
            r"hidden_sizes=\[1.5\]: it must be a list of positive integers",
        ),
        (InverseAutoregressiveFlow, {"activation": "elu"}, "unknown activation"),
    ],
)
def test_impossible_values_are_refused(kind: Callable[..., nn.Module], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(in_features=5, latent_dim=2, **arguments)
