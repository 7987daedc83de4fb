"""Importance-weighted bounds: what they are, and that two estimates of one gradient agree."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.objectives.parts import EncodedPrior, LearnedPrior, linear_vae
from vaelab.models.distributions.latents import DiagonalGaussian
from vaelab.models.priors import StandardNormal
from vaelab.models.vae import VAE
from vaelab.objectives import ELBO, IWAE, DReG, Objective


def _gradient(objective: Objective, vae: VAE, x: Tensor, part: str, seed: int | None = None) -> Tensor:
    """Of one part's parameters, in one vector."""
    if seed is not None:
        torch.manual_seed(seed)
    parameters = list(vae.get_submodule(part).parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(objective(vae, x)["loss"], parameters)])


def test_with_one_sample_it_is_the_sampled_elbo() -> None:
    vae, x = linear_vae(), torch.randn(6, 1, 3, 2)
    torch.manual_seed(1)
    terms = IWAE(1, "sampled")(vae, x)
    torch.manual_seed(1)
    bound = ELBO(1, "sampled")(vae, x)
    torch.testing.assert_close(terms["iwae"], bound["elbo"])
    torch.testing.assert_close(terms["loss"], bound["loss"])
    for part in ("posterior", "decoder"):
        gradients = [_gradient(objective, vae, x, part, 1) for objective in (IWAE(1, "sampled"), ELBO(1, "sampled"))]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", [IWAE, DReG])
def test_the_bound_is_the_logarithm_of_the_mean_weight(kind: Callable[[int], Objective]) -> None:
    vae, x = linear_vae(), torch.randn(6, 1, 3, 2)
    torch.manual_seed(1)
    terms = kind(9)(vae, x)
    torch.manual_seed(1)
    log_weights = vae.log_weights(x, 9)
    torch.testing.assert_close(terms["iwae"], log_weights.exp().mean(0).log())
    torch.testing.assert_close(terms["loss"], -terms["iwae"].mean())


def test_the_bound_rises_with_the_samples_to_the_likelihood() -> None:
    vae, x = linear_vae(), torch.randn(500, 1, 3, 2)
    weight, bias = vae.decoder.get_parameter("linear.weight"), vae.decoder.get_parameter("linear.bias")
    covariance = weight @ weight.T + 0.7**2 * torch.eye(6)
    exact = torch.distributions.MultivariateNormal(bias, covariance).log_prob(x.flatten(1)).mean().item()
    bounds = [IWAE(samples)(vae, x)["iwae"].mean().item() for samples in (1, 4, 16, 4096)]
    assert bounds == sorted(bounds)
    assert bounds[1] - bounds[0] > 0.1
    assert bounds[-1] < exact + 0.02
    assert exact - bounds[-1] < 0.1 * (exact - bounds[0])


@pytest.mark.parametrize("prior", [StandardNormal, LearnedPrior, EncodedPrior])
@pytest.mark.parametrize("samples", [1, 5])
def test_decoder_and_prior_get_the_same_gradient(samples: int, prior: Callable[..., nn.Module]) -> None:
    vae, x = linear_vae(prior), torch.randn(6, 1, 3, 2)
    for part in ("decoder",) if prior is StandardNormal else ("decoder", "prior"):
        gradients = [_gradient(kind(samples, "sampled"), vae, x, part, 1) for kind in (IWAE, DReG)]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("prior", [StandardNormal, LearnedPrior, EncodedPrior])
@pytest.mark.parametrize("samples", [1, 2, 8])
def test_the_encoder_gets_a_gradient_of_the_same_expectation(samples: int, prior: Callable[..., nn.Module]) -> None:
    """Also where the prior looks at the encoder."""
    vae, x = linear_vae(prior), torch.randn(1, 1, 3, 2).expand(100, -1, -1, -1)
    iwae, dreg = (
        torch.stack([_gradient(kind(samples, "sampled"), vae, x, "posterior") for _ in range(200)])
        for kind in (IWAE, DReG)
    )
    error = ((iwae.var(0) + dreg.var(0)) / 200).sqrt()
    assert ((iwae.mean(0) - dreg.mean(0)).abs() < 5 * error + 1e-6).all()
    assert (iwae.mean(0).abs() > 10 * error).any()  # so that it is not two zeros that agree


def test_its_signal_is_not_lost_in_noise_where_samples_are_many() -> None:
    vae, x = linear_vae(), torch.randn(1, 1, 3, 2)
    iwae, dreg = (torch.stack([_gradient(kind(64), vae, x, "posterior") for _ in range(300)]) for kind in (IWAE, DReG))
    assert dreg.var(0).sum() < iwae.var(0).sum() / 50
    signal, other_signal = (each.mean(0).norm() ** 2 / each.var(0).sum() for each in (dreg, iwae))
    assert signal > 10 * other_signal


def test_with_one_sample_it_is_the_path_derivative() -> None:
    vae, x = linear_vae(), torch.randn(6, 1, 3, 2)
    torch.manual_seed(1)
    q_z = vae.encode(x)
    assert isinstance(q_z, DiagonalGaussian)
    z = q_z.rsample((1,))
    stopped = DiagonalGaussian(q_z.mean.detach(), q_z.log_std.detach()).log_prob(z)
    path = -(vae.decode(z).log_prob(x) + vae.p_z().log_prob(z) - stopped).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(path, list(vae.posterior.parameters()))])
    torch.testing.assert_close(_gradient(DReG(1), vae, x, "posterior", 1), expected)


def test_at_the_true_posterior_the_gradient_has_no_noise_at_all() -> None:
    """Every weight is p(x) there, whatever z is: nothing is left to be gained, and each sample says so."""
    vae = linear_vae()
    decoder, head = vae.decoder.get_submodule("linear"), vae.posterior.get_submodule("head")
    assert isinstance(decoder, nn.Linear)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        decoder.weight.copy_(torch.eye(6)[:, :2])
        decoder.bias.zero_()
        precision = 1 + 1 / 0.7**2
        head.weight.zero_()
        head.weight[:2].copy_(torch.eye(6)[:2] / 0.7**2 / precision)
        head.bias.copy_(torch.tensor([0, 0, 1 / precision, 1 / precision]).clamp(min=1e-30).log().clamp(min=-60))
        head.bias[:2].zero_()
    x = torch.randn(6, 1, 3, 2)
    for samples in (1, 8):
        noise_free, noisy = (_gradient(kind(samples), vae, x, "posterior") for kind in (DReG, IWAE))
        assert noise_free.abs().max() < 1e-5
        assert noisy.abs().max() > 1e-2


def test_nothing_is_hooked_without_gradients() -> None:
    vae, x = linear_vae(), torch.randn(6, 1, 3, 2)
    with torch.no_grad():
        assert not DReG(4)(vae, x)["loss"].requires_grad
