"""The aggregate posterior: its parts against closed forms, its estimates against sums over everything."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from tests.conftest import tiny_vae
from vaelab.models.distributions.latents import DiagonalGaussian, StandardNormal
from vaelab.models.likelihoods import Bernoulli
from vaelab.objectives import ELBO, MMD, BetaTCVAE
from vaelab.objectives.aggregate import Kernel, Sampling, decompose, log_sampling_weights, maximum_mean_discrepancy


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_stratified_weights_add_up_to_one(count: int) -> None:
    torch.testing.assert_close(log_sampling_weights(count, 6).logsumexp(1), torch.zeros(count))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_stratified_estimates_are_the_aggregate_on_average_over_all_batches(count: int) -> None:
    q_z = DiagonalGaussian(torch.randn(6, 2), 0.3 * torch.randn(6, 2))
    z = q_z.sample()[0]  # of the first image
    density = q_z.log_prob(z).exp()
    weights = log_sampling_weights(count, 6)[0].exp()
    estimates = [(weights * density[[0, *others]]).sum() for others in itertools.combinations(range(1, 6), count - 1)]
    torch.testing.assert_close(torch.stack(estimates).mean(), density.mean())


def test_a_batch_of_everything_gives_the_aggregate_itself() -> None:
    torch.testing.assert_close(log_sampling_weights(5, 5).exp(), torch.full((5, 5), 0.2))


def test_stratified_weights_are_the_mean_of_the_papers_over_the_batchs_order() -> None:
    """There, of the M others, M - 1 have the weight 1 / M and one has (N - M) / (N M)."""
    data_size, others = 10, 4
    odd = (data_size - others) / (data_size * others)
    mean = ((others - 1) / others + odd) / others
    weights = log_sampling_weights(others + 1, data_size).exp()
    torch.testing.assert_close(weights.diagonal(), torch.full((5,), 1 / data_size))
    torch.testing.assert_close(weights[0, 1:], torch.full((4,), mean))


@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_parts_add_up_to_the_divergence(samples: int, sampling: Sampling) -> None:
    vae, x = tiny_vae(Bernoulli()), torch.rand(6, 1, 4, 4)
    objective = BetaTCVAE(beta=5.0, alpha=0.5, gamma=2.0, sampling=sampling, samples=samples, divergence="sampled")
    objective.data_size = 100
    terms = objective(vae, x)
    parts = [terms[name] for name in ("mutual_information", "total_correlation", "dimension_kl")]
    assert all(part.shape == (6,) for part in parts)
    torch.testing.assert_close(parts[0] + parts[1] + parts[2], terms["kl"])
    expected = terms["reconstruction"] + 0.5 * parts[0] + 5 * parts[1] + 2 * parts[2]
    torch.testing.assert_close(terms["loss"], expected.mean())


def test_the_parts_are_what_a_loop_over_pairs_gives() -> None:
    q_z, p_z = DiagonalGaussian(torch.randn(4, 2), 0.3 * torch.randn(4, 2)), StandardNormal(torch.zeros(2))
    z = q_z.sample((3,))
    weights = log_sampling_weights(4, 50)
    information, correlation, dimensions = decompose(q_z, p_z, z, weights)
    sums = torch.zeros(4, 3)
    for k, i in itertools.product(range(3), range(4)):
        each = [Normal(q_z.mean[j], q_z.stddev[j]).log_prob(z[k, i]).exp() for j in range(4)]
        joint = sum(weights[i, j].exp() * each[j].prod() for j in range(4))
        marginals = torch.stack([sum(weights[i, j].exp() * each[j][d] for j in range(4)) for d in range(2)])
        sums[i] += torch.stack(
            [
                each[i].prod().log() - joint.log(),
                joint.log() - marginals.log().sum(),
                marginals.log().sum() - p_z.log_prob(z[k, i]),
            ]
        )
    torch.testing.assert_close(torch.stack([information, correlation, dimensions], 1), sums / 3)


@pytest.mark.parametrize("p_z", [StandardNormal(torch.zeros(2)), DiagonalGaussian(torch.ones(2), torch.ones(2))])
def test_the_parts_tend_to_the_closed_forms_of_a_gaussian_aggregate(p_z: DiagonalGaussian) -> None:
    """Means drawn from N(0, S) and posteriors N(mean, s^2 I): together N(0, S + s^2 I)."""
    std, count = 0.6, 2000
    covariance = torch.tensor([[1.5, 0.8], [0.8, 0.9]])
    aggregate = MultivariateNormal(torch.zeros(2), covariance + std**2 * torch.eye(2))
    mean = MultivariateNormal(torch.zeros(2), covariance).sample((count,))
    q_z = DiagonalGaussian(mean, torch.full((count, 2), std).log())
    estimates = decompose(q_z, p_z, q_z.sample((1,)), log_sampling_weights(count, 10**6))
    sigma = aggregate.covariance_matrix
    dimensions = Normal(torch.zeros(2), sigma.diagonal().sqrt())
    exact = [
        0.5 * (sigma.logdet() - 4 * math.log(std)),
        0.5 * (sigma.diagonal().log().sum() - sigma.logdet()),
        kl_divergence(dimensions, Normal(p_z.mean, p_z.stddev)).sum(),
    ]
    for estimate, value in zip(estimates, exact, strict=True):
        bias = 0.01  # of the logarithm: the relative variance of the estimated density, which two thousand images leave
        assert (estimate.mean() - value).abs() < 5 * estimate.std() / count**0.5 + bias


def test_it_must_know_how_many_images_there_are() -> None:
    with pytest.raises(ValueError, match="data_size"):
        BetaTCVAE()(tiny_vae(Bernoulli()), torch.rand(4, 1, 4, 4))


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("kernel", ["inverse_multiquadratic", "gaussian"])
def test_the_discrepancy_is_zero_on_average_only_between_equals(kernel: Kernel, shift: float) -> None:
    a, b = torch.randn(3000, 8, 2) + shift, torch.randn(3000, 8, 2)
    estimates = maximum_mean_discrepancy(a, b, kernel)
    assert estimates.shape == (3000,)
    assert (estimates < 0).any()
    error = estimates.std() / 3000**0.5
    if shift:
        assert estimates.mean() > 10 * error
    else:
        assert estimates.mean().abs() < 5 * error


@pytest.mark.parametrize("kernel", ["inverse_multiquadratic", "gaussian"])
def test_the_discrepancy_is_what_a_double_loop_gives(kernel: Kernel) -> None:
    a, b = torch.randn(5, 3).double(), torch.randn(5, 3).double() + 1

    def similarity(left: Tensor, right: Tensor) -> float:
        distance = (left - right).square().sum().item()
        widths = [2 * 3 * scale for scale in (0.1, 0.2, 0.5, 1, 2, 5, 10)]
        if kernel == "gaussian":
            return sum(math.exp(-distance / width) for width in widths)
        return sum(width / (width + distance) for width in widths)

    expected = 0.0
    for i, j in itertools.product(range(5), range(5)):
        if i != j:
            expected += (similarity(a[i], a[j]) + similarity(b[i], b[j])) / 20
        expected -= 2 * similarity(a[i], b[j]) / 25
    assert maximum_mean_discrepancy(a, b, kernel).item() == pytest.approx(expected, abs=1e-10)


def test_the_discrepancy_pulls_samples_to_the_others() -> None:
    a = (torch.randn(20, 2) + 3).requires_grad_()
    b = torch.randn(20, 2)
    optimizer = torch.optim.Adam([a], lr=0.1)
    first = maximum_mean_discrepancy(a, b).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = maximum_mean_discrepancy(a, b)
        loss.backward()
        optimizer.step()
    assert a.isfinite().all()
    assert loss.item() < 0.05 * first


def test_equal_samples_have_finite_gradients() -> None:
    a = torch.zeros(4, 2, requires_grad=True)
    maximum_mean_discrepancy(a, torch.zeros(4, 2)).backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_the_discrepancy_is_added_to_the_reconstruction() -> None:
    vae, x = tiny_vae(Bernoulli()), torch.rand(6, 1, 4, 4)
    torch.manual_seed(1)
    terms = MMD(mmd_weight=3.0, kl_weight=0.5, samples=2)(vae, x)
    torch.manual_seed(1)
    bound = ELBO(2)(vae, x)
    expected = bound["reconstruction"].mean() + 0.5 * bound["kl"].mean() + 3 * terms["mmd"]
    torch.testing.assert_close(terms["loss"], expected)
    torch.manual_seed(1)
    z = vae.encode(x).rsample((2,))
    prior = torch.stack([maximum_mean_discrepancy(one, two) for one, two in zip(z, torch.randn(2, 6, 3), strict=True)])
    torch.testing.assert_close(terms["mmd"], prior.mean())
