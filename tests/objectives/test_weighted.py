"""Weighted bounds against their formulas."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tests.conftest import tiny_vae
from tests.objectives.parts import WARMED_UP, built
from vaelab.models.distributions.latents import DiagonalGaussian
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.vae import VAE
from vaelab.objectives import (
    ELBO,
    BetaTCVAE,
    BetaVAE,
    Capacity,
    FreeBits,
    Objective,
    Warmup,
)


@pytest.fixture
def vae() -> VAE:
    """One whose posteriors differ from image to image, and from the prior."""
    vae = tiny_vae(Bernoulli())
    with torch.no_grad():
        vae.get_parameter("posterior.head.weight").mul_(3)
    return vae


def _kl_per_dimension(vae: VAE, x: Tensor) -> Tensor:
    q_z = vae.encode(x)
    return kl_divergence(Normal(q_z.mean, q_z.stddev), Normal(torch.zeros(3), torch.ones(3)))


@pytest.mark.parametrize(
    "objective",
    [BetaVAE(beta=1.0), FreeBits(free_nats=0.0), FreeBits(free_nats=0.0, per="total"), BetaTCVAE(beta=1.0)],
    ids=["beta", "free_bits", "free_bits_total", "beta_tc"],
)
def test_without_its_weight_each_is_the_elbo(objective: Objective, vae: VAE) -> None:
    x = torch.rand(6, 1, 4, 4)
    objective.data_size = 100
    torch.manual_seed(1)
    loss = objective(vae, x)["loss"]
    torch.manual_seed(1)
    torch.testing.assert_close(loss, ELBO()(vae, x)["loss"])


def test_beta_weighs_the_divergence(vae: VAE) -> None:
    objective = BetaVAE(beta=4.0, warmup=Warmup(10))
    objective.step.fill_(5)
    terms = objective(vae, torch.rand(6, 1, 4, 4))
    torch.testing.assert_close(terms["loss"], (terms["reconstruction"] + 0.5 * 4 * terms["kl"]).mean())


def test_free_bits_are_counted_after_the_mean_over_the_batch(vae: VAE) -> None:
    x = torch.rand(6, 1, 4, 4)
    each = _kl_per_dimension(vae, x)
    free = each.mean(0).sort().values[1].item()  # some dimensions are below, some above
    terms = FreeBits(free)(vae, x)
    charged = terms["loss"] - terms["reconstruction"].mean()
    torch.testing.assert_close(charged, sum(max(kl, torch.tensor(free)) for kl in each.mean(0)))
    assert charged < each.clamp(min=free).mean(0).sum() - 1e-4  # the maximum of each image is another number


def test_free_bits_in_total(vae: VAE) -> None:
    x = torch.rand(6, 1, 4, 4)
    mean = _kl_per_dimension(vae, x).sum(1).mean().item()
    for free, expected in ((mean / 3 - 0.01, mean), (mean / 3 + 0.1, mean + 0.3)):
        terms = FreeBits(free, per="total")(vae, x)
        assert (terms["loss"] - terms["reconstruction"].mean()).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("per", ["dimension", "total"])
def test_what_is_free_has_no_gradient(vae: VAE, per: str) -> None:
    x, head = torch.rand(6, 1, 4, 4), vae.get_parameter("posterior.head.weight")
    torch.manual_seed(1)
    terms = FreeBits(100.0, per=per)(vae, x)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(terms["loss"], head, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(terms["reconstruction"].mean(), head)[0])


def test_a_marginal_is_a_dimension_by_itself() -> None:
    q_z = DiagonalGaussian(torch.randn(5, 3), torch.randn(5, 3))
    z = torch.randn(7, 5, 3)
    assert q_z.marginals().batch_shape == (5, 3)
    torch.testing.assert_close(q_z.marginals().log_prob(z.unsqueeze(-1)), Normal(q_z.mean, q_z.stddev).log_prob(z))
    torch.testing.assert_close(q_z.marginals().log_prob(z.unsqueeze(-1)).sum(-1), q_z.log_prob(z))


@pytest.mark.parametrize("step", [0, 3, 10, 50])
def test_the_capacity_is_where_the_loss_is_least(vae: VAE, step: int) -> None:
    objective = Capacity(capacity=2.0, gamma=7.0, warmup=Warmup(10))
    objective.step.fill_(step)
    x = torch.rand(6, 1, 4, 4)
    terms = objective(vae, x)
    capacity = 2.0 * min(step / 10, 1)
    kl = terms["kl"].mean()
    torch.testing.assert_close(terms["loss"], terms["reconstruction"].mean() + 7 * (kl - capacity).abs())
    head = vae.get_parameter("posterior.head.bias")
    gradient, of_reconstruction, of_kl = (
        torch.autograd.grad(value, head, retain_graph=True)[0]
        for value in (terms["loss"], terms["reconstruction"].mean(), kl)
    )
    torch.testing.assert_close(gradient - of_reconstruction, 7 * of_kl * (1 if kl > capacity else -1))


def test_the_capacity_is_reached() -> None:
    vae, x = tiny_vae(Bernoulli()), torch.rand(16, 1, 4, 4).round()
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    objective = Capacity(capacity=1.5, gamma=100.0)
    divergences = []
    for _ in range(300):
        terms = objective(vae, x)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        divergences.append(terms["kl"].mean().item())
    assert sum(divergences[-100:]) / 100 == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize("name", WARMED_UP)
def test_the_step_is_no_part_of_a_checkpoint(name: str) -> None:
    assert not built(name).state_dict()
