"""Learned priors: their densities and samples against quadrature, torch.distributions, Jacobians and the encoder."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from tests.conftest import LinearDecoder
from vaelab.models.distributions import latents
from vaelab.models.distributions.latents import Latent
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.networks.mlp import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import DiagonalGaussian, FullGaussian, InverseAutoregressiveFlow
from vaelab.models.priors import GaussianMixture, RealNVP, StandardNormal, VampPrior
from vaelab.models.vae import VAE
from vaelab.objectives import ELBO

PRIORS: dict[str, Callable[..., nn.Module]] = {
    "standard_normal": StandardNormal,
    "gaussian_mixture": partial(GaussianMixture, components=4),
    "vampprior": partial(VampPrior, image_shape=[1, 4, 4], components=5, weights="learned"),
    "realnvp": partial(RealNVP, couplings=4, hidden_sizes=[8]),
}
POSTERIORS: dict[str, Callable[..., nn.Module]] = {
    "diagonal_gaussian": DiagonalGaussian,
    "full_gaussian": FullGaussian,
    "iaf": partial(InverseAutoregressiveFlow, steps=2, context_size=4, hidden_sizes=[12]),
}
PAIRS = list(itertools.product(PRIORS, POSTERIORS))


def _vae(prior: str, posterior: str, latent_dim: int = 3, classes: int | None = None) -> VAE:
    return VAE(
        (1, 4, 4),
        latent_dim,
        partial(MLPEncoder, hidden_sizes=[8], activation="Tanh"),
        partial(MLPDecoder, hidden_sizes=[8]),
        Bernoulli(),
        PRIORS[prior],
        POSTERIORS[posterior],
        classes,
    )


def _moved(vae: VAE, by: float = 0.3) -> VAE:
    """Away from where it begins, which is often N(0, I)."""
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.startswith(("prior.", "posterior.")) and name != "prior.pixels":
                parameter.add_(by * torch.randn_like(parameter))
    return vae


def _no_images(x: Tensor) -> Latent:
    raise AssertionError("only the VampPrior looks at the encoder")


def _grid(half_width: float = 16.0, side: int = 401) -> tuple[Tensor, float]:
    """Points of the plane (side^2, 2), and the area of each."""
    axis = torch.linspace(-half_width, half_width, side)
    return torch.cartesian_prod(axis, axis), (2 * half_width / (side - 1)) ** 2


@torch.no_grad()
@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_densities_integrate_to_one_and_are_those_of_the_samples(prior: str, posterior: str) -> None:
    """What is averaged over samples is integrated over a grid: log-density, and functions that see little of tails."""
    p = _moved(_vae(prior, posterior, latent_dim=2), by=0.2).p_z()
    assert p.batch_shape == ()
    assert p.event_shape == (2,)
    z, area = _grid()
    log_density = torch.cat([p.log_prob(part) for part in z.split(20_000)])
    weights = log_density.exp() * area
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0), atol=2e-3, rtol=0)
    samples = p.sample((40_000,))

    def statistics(points: Tensor, log_prob: Tensor) -> Tensor:
        first, second = points.tanh().unbind(-1)
        return torch.stack([log_prob, first, second, first**2, second**2, first * second], -1)

    sampled = statistics(samples, p.log_prob(samples))
    expected = (weights[:, None] * statistics(z, log_density)).sum(0)
    error = 5 * sampled.std(0) / 40_000**0.5 + torch.tensor([0.02, *[2e-3] * 5])  # of what lies beyond the grid
    assert ((sampled.mean(0) - expected).abs() < error).all()


@torch.no_grad()
def test_mixture_is_torchs() -> None:
    prior = GaussianMixture(3, components=6)
    prior.logits.add_(torch.randn(6))
    prior.log_stds.add_(0.3 * torch.randn(6, 3))
    components = Independent(Normal(prior.means, prior.log_stds.exp()), 1)
    expected = MixtureSameFamily(Categorical(logits=prior.logits), components)
    p, z = prior(_no_images), 2 * torch.randn(7, 5, 3)
    torch.testing.assert_close(p.log_prob(z), expected.log_prob(z))
    samples = p.sample((200_000,))
    torch.testing.assert_close(samples.mean(0), expected.mean, atol=0.02, rtol=0.02)
    torch.testing.assert_close(samples.var(0), expected.variance, atol=0.02, rtol=0.02)
    assert p.rsample((7, 5)).shape == (7, 5, 3)
    assert p.sample().shape == (3,)


@torch.no_grad()
def test_mixture_of_many_components_begins_as_a_standard_normal() -> None:
    count = 50_000
    prior = GaussianMixture(2, components=count, spread=0.6)
    z = torch.randn(50, 2)
    terms = latents.DiagonalGaussian(prior.means, prior.log_stds).log_prob(z[:, None]).exp()  # (50, count)
    expected = StandardNormal(2)(_no_images).log_prob(z).exp()
    assert ((prior(_no_images).log_prob(z).exp() - expected).abs() < 5 * terms.std(1) / count**0.5).all()


def test_mixture_samples_carry_the_gradients_of_their_components() -> None:
    prior = GaussianMixture(3, components=2)
    z = prior(_no_images).rsample((1000,))
    z.sum().backward()
    assert prior.means.grad is not None
    torch.testing.assert_close(prior.means.grad.sum(0), torch.full((3,), 1000.0))  # every sample has one mean
    assert prior.means.grad.min() > 400
    assert prior.log_stds.grad is not None


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("classes", [None, 3])
def test_vampprior_is_the_mixture_of_the_posteriors_of_its_pseudo_inputs(posterior: str, classes: int | None) -> None:
    vae = _moved(_vae("vampprior", posterior, classes=classes))
    assert isinstance(vae.prior, VampPrior)
    with torch.no_grad():
        vae.prior.pixels[:, 0, 0] += 1
    images = vae.prior.pseudo_inputs
    assert images.shape == (5, 1, 4, 4)
    labels = None if classes is None else torch.tensor([0, 1, 2, 0, 1])
    log_weights = vae.prior.logits.log_softmax(0)
    z = torch.randn(6, 4, 3)
    terms = []
    for k in range(5):  # each by itself, for images of a batch must not be mixed up
        component = vae.encode(images[k : k + 1], None if labels is None else labels[k : k + 1])
        terms.append(log_weights[k] + component.log_prob(z))
    log_prob = vae.p_z().log_prob(z)
    torch.testing.assert_close(log_prob, torch.stack(terms).logsumexp(0))
    log_prob.sum().backward()
    assert vae.prior.pixels.grad is not None
    assert (vae.prior.pixels.grad[:, 0, 1:] != 0).all()
    assert not vae.prior.pixels.grad[:, 0, 0].any()  # beyond the border


def test_vampprior_keeps_pseudo_inputs_between_black_and_white() -> None:
    prior = VampPrior(2, [3, 5, 7], components=4, initial_mean=0.9, initial_std=0.5)
    assert prior.pseudo_inputs.shape == (4, 3, 5, 7)
    assert (prior.pseudo_inputs > 0).all()  # where there are gradients
    assert (prior.pseudo_inputs < 1).all()
    with torch.no_grad():
        prior.pixels.add_(3 * torch.randn_like(prior.pixels))
    assert prior.pseudo_inputs.min() == 0
    assert prior.pseudo_inputs.max() == 1
    assert [name for name, _ in prior.named_parameters()] == ["pixels"]  # uniform weights are not learned
    assert (prior.pseudo_inputs[0] - prior.pseudo_inputs[1]).abs().max() > 0.1


def test_vampprior_makes_the_bound_tight_where_the_data_are_its_pseudo_inputs() -> None:
    """KL(q(z|x) || p(z)), averaged over as many images, is the information of z about which it is: at most log N."""
    vae = VAE(
        (1, 2, 2),
        2,
        partial(MLPEncoder, hidden_sizes=[]),
        LinearDecoder,
        Bernoulli(),
        partial(VampPrior, image_shape=[1, 2, 2], components=4),
        DiagonalGaussian,
    )
    with torch.no_grad():
        vae.get_parameter("posterior.head.weight")[:2] *= 20  # so far apart, and so narrow, that images are told apart
        vae.get_parameter("posterior.head.weight")[2:].fill_(-5)
        assert isinstance(vae.prior, VampPrior)
        kl = ELBO(1000, divergence="sampled")(vae, vae.prior.pseudo_inputs)["kl"].mean()
    assert math.log(4) - 0.1 < kl < math.log(4) + 1e-5


@pytest.mark.parametrize("latent_dim", [2, 3, 6])
def test_realnvp_inverts_and_knows_its_jacobian(latent_dim: int) -> None:
    prior = RealNVP(latent_dim, couplings=5, hidden_sizes=[16])
    u = torch.randn(4, 7, latent_dim)
    with torch.no_grad():
        torch.testing.assert_close(prior.transform(u), (u, torch.zeros(4, 7)))  # the identity at first
        torch.testing.assert_close(
            prior(_no_images).log_prob(u), StandardNormal(latent_dim)(_no_images).log_prob(u), atol=1e-5, rtol=1e-5
        )
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        z, log_det = prior.transform(u)
        assert ((z - u).abs().amax((0, 1)) > 0.1).all()  # every dimension is moved
        torch.testing.assert_close(prior.transform.inverse(z), (u, log_det), atol=1e-5, rtol=1e-5)
    matrix = jacobian(lambda vector: prior.transform(vector)[0], u[0, 0])
    torch.testing.assert_close(torch.linalg.slogdet(matrix).logabsdet, log_det[0, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
@pytest.mark.parametrize("classes", [None, 3])
def test_everything_learns(prior: str, posterior: str, classes: int | None) -> None:
    """After one step: a flow that begins as the identity has no gradient in its first layers before."""
    vae = _vae(prior, posterior, classes=classes)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    x, y = torch.rand(6, 1, 4, 4).round(), torch.tensor([0, 1, 2, 2, 1, 0])
    for _ in range(2):
        optimizer.zero_grad()
        terms = ELBO(3, divergence="sampled")(vae, x, y)
        terms["loss"].backward()
        optimizer.step()
    for name in ("elbo", "reconstruction", "kl"):
        assert terms[name].shape == (6,)
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
@pytest.mark.parametrize("classes", [None, 3])
def test_weights_make_the_same_model_again(prior: str, posterior: str, classes: int | None) -> None:
    vae, other = (_moved(_vae(prior, posterior, classes=classes)) for _ in range(2))
    x, y = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 2, 1])

    def figures(model: VAE) -> Tensor:
        torch.manual_seed(1)
        return model.log_weights(x, 4, y)

    assert not torch.equal(figures(vae), figures(other))
    other.load_state_dict(vae.state_dict())
    assert torch.equal(figures(vae), figures(other))
    assert torch.equal(vae.reconstruct(x, y), other.reconstruct(x, y))
    assert vae.sample(7).shape == (7, 1, 4, 4)


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_mixed_precision_leaves_densities_in_full(prior: str, posterior: str) -> None:
    vae, x = _moved(_vae(prior, posterior)), torch.rand(5, 1, 4, 4)
    torch.manual_seed(1)
    exact = vae.log_weights(x, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(1)
        log_weights = vae.log_weights(x, 4)
        z, log_q = vae.encode(x).rsample_and_log_prob((4,))
        samples = vae.p_z().sample((4, 5))
    for value in (log_weights, z, log_q, samples, vae.p_z().log_prob(z)):
        assert value.dtype == torch.float32
        assert value.isfinite().all()
    torch.testing.assert_close(log_weights, exact, atol=0.3, rtol=0.03)
    log_weights.sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in vae.parameters())


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (GaussianMixture, {"components": 0}, "components=0: it must be a positive integer; type e.g. components=10"),
        (GaussianMixture, {"components": True}, "components=true: it must be a positive integer"),
        (GaussianMixture, {"spread": 1.0}, "spread=1.0: it must be a number above 0 and below 1"),
        (GaussianMixture, {"spread": None}, "spread=null: it must be a number above 0 and below 1"),
        (VampPrior, {"image_shape": [1, 4, 4], "components": 2.5}, "components=2.5: it must be a positive integer"),
        (VampPrior, {"image_shape": [1, 4, -4]}, r"image_shape=\[1,4,-4\]: it must be a list of 3 positive integers"),
        (VampPrior, {"image_shape": [1, 4, 4], "weights": "equal"}, "weights=equal: it must be uniform or learned"),
        (
            VampPrior,
            {"image_shape": [1, 4, 4], "initial_mean": 0},
            "initial_mean=0: it must be a number above 0 and below 1",
        ),
        (VampPrior, {"image_shape": [1, 4, 4], "initial_std": 0}, "initial_std=0: it must be a finite number above 0"),
        (RealNVP, {"latent_dim": 1}, "type latent_dim=2 or more"),
        (RealNVP, {"couplings": 0}, "couplings=0: it must be a positive integer"),
        (RealNVP, {"hidden_sizes": 64}, "hidden_sizes=64: it must be a list of positive integers"),
        (RealNVP, {"hidden_sizes": [0]}, r"hidden_sizes=\[0\]: it must be a list of positive integers"),
        (RealNVP, {"activation": "relu"}, "unknown activation"),
    ],
)
def test_impossible_values_are_refused(kind: Callable[..., nn.Module], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**{"latent_dim": 2, **arguments})
