"""The evidence lower bound: its terms, their sums and means, their gradients."""

import torch
from torch.distributions import kl_divergence

from tests.conftest import tiny_vae
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.vae import VAE
from vaelab.objectives import ELBO, Autoencoder


def test_terms_add_up_per_example() -> None:
    vae, x = tiny_vae(Bernoulli()), torch.rand(5, 1, 4, 4)
    terms = ELBO()(vae, x)
    for name in ("elbo", "reconstruction", "kl"):
        assert terms[name].shape == (5,)
    torch.testing.assert_close(terms["elbo"], -(terms["reconstruction"] + terms["kl"]))
    torch.testing.assert_close(terms["loss"], -terms["elbo"].mean())


def test_terms_are_sums_over_pixels_and_latents() -> None:
    """Of a decoder that always says one half, and a posterior that is the prior moved by one."""
    vae = tiny_vae(Bernoulli())
    for name in ("decoder.outputs.weight", "decoder.outputs.bias", "posterior.head.weight"):
        torch.nn.init.zeros_(vae.get_parameter(name))
    with torch.no_grad():
        vae.get_parameter("posterior.head.bias").copy_(torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    terms = ELBO()(vae, torch.ones(2, 1, 4, 4))
    torch.testing.assert_close(terms["reconstruction"], torch.full((2,), 16 * torch.tensor(2.0).log().item()))
    torch.testing.assert_close(terms["kl"], torch.full((2,), 3 * 0.5))


def test_more_samples_estimate_the_same_bound_with_less_noise(linear_vae: VAE) -> None:
    x = torch.randn(1, 1, 3, 2).expand(20_000, -1, -1, -1)
    one, many = (ELBO(samples)(linear_vae, x)["elbo"] for samples in (1, 10))
    error = (one.var() + many.var()).sqrt() / 20_000**0.5
    assert (one.mean() - many.mean()).abs() < 5 * error
    assert many.var() < one.var() / 8


def test_the_elbo_is_the_mean_of_the_log_weights(linear_vae: VAE) -> None:
    x = torch.randn(3, 1, 3, 2)
    elbo = torch.stack([ELBO(1000)(linear_vae, x)["elbo"] for _ in range(50)])
    log_weights = linear_vae.log_weights(x, 50_000)
    error = (elbo.var(0) / 50 + log_weights.var(0) / 50_000).sqrt()
    assert ((elbo.mean(0) - log_weights.mean(0)).abs() < 5 * error).all()


def test_the_gap_to_the_likelihood_is_the_divergence_from_the_true_posterior(linear_vae: VAE) -> None:
    """log p(x) - ELBO = KL(q(z|x) || p(z|x)), all of it in closed form for a linear Gaussian model."""
    weight, bias = linear_vae.decoder.get_parameter("linear.weight"), linear_vae.decoder.get_parameter("linear.bias")
    x = torch.randn(4, 1, 3, 2)
    precision = torch.eye(2) + weight.T @ weight / 0.49
    mean = (x.flatten(1) - bias) @ weight / 0.49 @ torch.linalg.inv(precision)
    posterior = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
    exact = torch.distributions.MultivariateNormal(bias, weight @ weight.T + 0.49 * torch.eye(6)).log_prob(x.flatten(1))
    q = linear_vae.encode(x)
    full = torch.distributions.MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    elbo = ELBO(200_000)(linear_vae, x)["elbo"]
    torch.testing.assert_close(exact - elbo, kl_divergence(full, posterior), atol=0.03, rtol=0.02)


def test_one_batch_can_be_overfitted() -> None:
    vae, x = tiny_vae(Bernoulli()), (torch.rand(4, 1, 4, 4) > 0.5).float()
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    first = last = ELBO()(vae, x)["loss"].item()
    for _ in range(400):
        loss = ELBO()(vae, x)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = loss.item()
    assert first > 10  # about 16 pixels at ln 2 each
    assert last < 5  # four images need no more than ln 4 = 1.4 nats, and what their code costs in noise


def test_the_sampled_bound_tends_to_the_analytic_one() -> None:
    vae, x = tiny_vae(Bernoulli()), torch.rand(3, 1, 4, 4).round()
    analytic, sampled = ELBO(50_000)(vae, x), ELBO(50_000, divergence="sampled")(vae, x)
    torch.testing.assert_close(sampled["kl"], analytic["kl"], atol=0.02, rtol=0.02)
    torch.testing.assert_close(sampled["elbo"], analytic["elbo"], atol=0.1, rtol=0.01)


def test_the_sampled_bound_is_the_mean_log_weight_of_its_samples(linear_vae: VAE) -> None:
    x = torch.randn(5, 1, 3, 2)
    torch.manual_seed(1)
    terms = ELBO(7, divergence="sampled")(linear_vae, x)
    torch.manual_seed(1)
    torch.testing.assert_close(terms["elbo"], linear_vae.log_weights(x, 7).mean(0))


def test_the_autoencoder_reconstructs_from_the_mean_and_reports_the_bound() -> None:
    vae, x = tiny_vae(Bernoulli()), torch.rand(5, 1, 4, 4).round()
    torch.manual_seed(2)
    terms = Autoencoder()(vae, x)
    torch.manual_seed(2)
    bound = ELBO()(vae, x)
    torch.testing.assert_close(terms["elbo"], bound["elbo"])
    torch.testing.assert_close(terms["loss"], -vae.decode(vae.encode(x).mean).log_prob(x).mean())
    terms["loss"].backward()
    gradient = vae.get_parameter("posterior.head.weight").grad
    assert gradient is not None
    assert gradient[:3].abs().sum() > 0
    assert not gradient[3:].any()  # the scale is not trained
