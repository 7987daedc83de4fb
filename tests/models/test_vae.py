"""The model's identities."""

import math
from functools import partial

import pytest
import torch
from torch.distributions import MultivariateNormal

from tests.conftest import tiny_vae
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.networks.layers import glorot
from vaelab.models.networks.mlp import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import DiagonalGaussian, FullGaussian
from vaelab.models.priors import RealNVP, StandardNormal, VampPrior
from vaelab.models.vae import VAE


def test_shapes() -> None:
    vae = tiny_vae(Bernoulli(), image_shape=(3, 5, 7), latent_dim=2)
    x = torch.rand(6, 3, 5, 7)
    assert vae.encode(x).rsample((4,)).shape == (4, 6, 2)
    assert vae.decode(torch.randn(4, 6, 2)).mean.shape == (4, 6, 3, 5, 7)
    assert vae.decode(torch.randn(6, 2)).log_prob(x).shape == (6,)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.sample(9).shape == (9, 3, 5, 7)
    assert vae.log_weights(x, 11).shape == (11, 6)


def test_pictures_are_between_black_and_white(mse_vae: VAE) -> None:
    for vae in (mse_vae, tiny_vae(Bernoulli())):
        for pictures in (vae.sample(50), vae.reconstruct(torch.rand(50, 1, 4, 4))):
            assert pictures.min() >= 0
            assert pictures.max() <= 1


def test_importance_sampled_likelihood_is_the_exact_gaussian_one(linear_vae: VAE) -> None:
    """Probabilistic PCA: x ~ N(b, W W^T + sigma^2 I) (Tipping and Bishop 1999)."""
    weight, bias = linear_vae.decoder.get_parameter("linear.weight"), linear_vae.decoder.get_parameter("linear.bias")
    covariance = weight @ weight.T + 0.7**2 * torch.eye(6)
    x = torch.randn(20, 1, 3, 2)
    exact = MultivariateNormal(bias, covariance).log_prob(x.flatten(1))
    samples = 100_000
    log_weights = linear_vae.log_weights(x, samples)
    estimate = log_weights.logsumexp(0) - math.log(samples)
    weights = (log_weights - estimate).exp()  # mean one
    error = weights.std(0) / samples**0.5
    assert ((estimate - exact).abs() < 5 * error + 1e-4).all()


def test_the_bound_rises_with_the_number_of_samples(linear_vae: VAE) -> None:
    x = torch.randn(200, 1, 3, 2)
    log_weights = linear_vae.log_weights(x, 4096)
    bounds = [
        (log_weights.view(k, -1, 200).logsumexp(0) - math.log(k)).mean().item() for k in (1, 2, 4, 16, 64, 512, 4096)
    ]
    assert bounds == sorted(bounds)
    assert bounds[-1] - bounds[0] > 0.1


@pytest.mark.parametrize("latent_dim", [0, -1, 2.5, "20"])
def test_impossible_latent_sizes_are_refused(latent_dim: int) -> None:
    with pytest.raises(ValueError, match="latent_dim=.*: it must be a positive integer"):
        tiny_vae(Bernoulli(), latent_dim=latent_dim)


@pytest.mark.parametrize("shape", [(28, 28), (1, 0, 28), (1, 28, -1)])
def test_impossible_image_shapes_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="image_shape=.*: it must be a list of 3 positive integers"):
        tiny_vae(Bernoulli(), image_shape=shape)


def test_an_initialisation_leaves_what_begins_as_something_alone() -> None:
    parts = (partial(MLPEncoder, hidden_sizes=[8]), partial(MLPDecoder, hidden_sizes=[8]), Bernoulli())
    vae = VAE((1, 4, 4), 4, *parts, RealNVP, FullGaussian, initialize=glorot)
    z = torch.randn(6, 4)
    torch.testing.assert_close(vae.p_z().log_prob(z), StandardNormal(4)(vae.encode).log_prob(z))
    covariance = vae.encode(torch.rand(6, 1, 4, 4)).scale_tril  # type: ignore[attr-defined]
    assert torch.equal(covariance, torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1)))


def test_a_conditional_vampprior_has_an_image_of_each_class() -> None:
    parts = (partial(MLPEncoder, hidden_sizes=[8]), partial(MLPDecoder, hidden_sizes=[8]), Bernoulli())
    prior = partial(VampPrior, image_shape=(1, 4, 4), components=2)
    vae = VAE((1, 4, 4), 4, *parts, prior, DiagonalGaussian, classes=3)
    with pytest.raises(NotImplementedError, match="components=3"):
        vae.p_z()
