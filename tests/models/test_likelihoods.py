"""What is called a likelihood sums to one; what is not, says so."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from tests.conftest import tiny_vae
from vaelab.models.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Gaussian,
    Laplace,
    Likelihood,
    ScaledLikelihood,
    SquaredError,
    bits_per_dim,
)
from vaelab.objectives import ELBO

LEVELS = torch.arange(256) / 255


def _every() -> list[Likelihood]:
    return [
        *(Bernoulli(), SquaredError(), ContinuousBernoulli()),
        *(Gaussian(scale) for scale in (0.3, "learned", "per_pixel", "optimal")),
        *(kind(scale) for kind in (Laplace, DiscretizedLogistic) for scale in (0.3, "learned", "per_pixel")),
    ]


def _name(likelihood: Likelihood) -> str:
    return f"{type(likelihood).__name__}-{getattr(likelihood, 'scale', '')}".rstrip("-")


@pytest.fixture(params=_every(), ids=_name)
def likelihood(request: pytest.FixtureRequest) -> Likelihood:
    """Every kind, as good as new."""
    return copy.deepcopy(request.param)


def _outputs(likelihood: Likelihood, *shape: int) -> Tensor:
    """Random decoder outputs for images of shape (..., C, H, W)."""
    *batch, channels, height, width = shape
    return 2 * torch.randn(*batch, channels * likelihood.parameters_per_channel, height, width)


def _one_pixel(likelihood: Likelihood) -> Distribution:
    """Of five different outputs: batch shape (5,), one pixel."""
    return likelihood.eval()(_outputs(likelihood, 5, 1, 1, 1))


def _grid(values: Tensor) -> Tensor:
    """Values as one-pixel images that meet a batch of distributions: (len(values), 1, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1, 1)


def test_likelihoods_of_grey_pixels_integrate_to_one_and_no_others(likelihood: Likelihood) -> None:
    p = _one_pixel(likelihood)
    if isinstance(likelihood, DiscretizedLogistic):
        integral = p.log_prob(_grid(LEVELS)).exp().sum(0)
    else:
        is_within = isinstance(likelihood, (Bernoulli, ContinuousBernoulli))
        low, high = (0.0, 1.0) if is_within else (-12.0, 13.0)
        width = (high - low) / 400_000
        midpoints = torch.arange(400_000, dtype=torch.float64) * width + low + width / 2
        integral = p.log_prob(_grid(midpoints)).exp().sum(0) * width
    is_one = (integral - 1).abs() < 2e-5
    assert is_one.all() if likelihood.is_normalized(binary=False) else not is_one.any()


def test_only_some_are_likelihoods_of_binary_pixels() -> None:
    assert {_name(each) for each in _every() if each.is_normalized(binary=True)} == {
        *("Bernoulli", "DiscretizedLogistic-0.3", "DiscretizedLogistic-learned", "DiscretizedLogistic-per_pixel")
    }
    assert {type(each) for each in _every() if each.has_bits_per_dim} == {DiscretizedLogistic}


def test_samples_have_the_stated_moments(likelihood: Likelihood) -> None:
    p = _one_pixel(likelihood)
    samples = p.sample(torch.Size((100_000,))).double()
    centred = samples - samples.mean(0)
    variance, fourth = centred.square().mean(0), centred.pow(4).mean(0)
    assert ((samples.mean(0) - p.mean).abs() < 5 * (variance / 100_000).sqrt() + 1e-6).all()
    assert ((variance - p.variance).abs() < 5 * ((fourth - variance.square()) / 100_000).sqrt() + 1e-6).all()
    if likelihood.has_bits_per_dim:
        torch.testing.assert_close((255 * samples).round() / 255, samples, atol=1e-6, rtol=0)


def test_nothing_is_as_probable_as_the_mode(likelihood: Likelihood) -> None:
    p = _one_pixel(likelihood)
    levels = LEVELS[[0, 255]] if isinstance(likelihood, Bernoulli) else LEVELS
    assert (p.log_prob(p.mode) >= p.log_prob(_grid(levels)).amax(0) - 1e-6).all()


def test_event_shapes_with_and_without_importance_samples(likelihood: Likelihood) -> None:
    x = torch.rand(4, 3, 5, 2)
    for batch in ((4,), (6, 4)):
        outputs = _outputs(likelihood, *batch, 3, 5, 2)
        p = likelihood.eval()(outputs)
        assert p.mean.shape == p.mode.shape == p.sample().shape == (*batch, 3, 5, 2)
        assert p.sample(torch.Size((2,))).shape == (2, *batch, 3, 5, 2)
        assert p.log_prob(x).shape == batch
        assert p.batch_shape == batch
        assert p.event_shape == (3, 5, 2)
        assert p.mean.min() >= 0
        assert p.mean.max() <= 1
    first = likelihood(outputs[2]).log_prob(x)  # a sample at a time is the same
    torch.testing.assert_close(p.log_prob(x)[2], first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_outputs_and_pixels_are_finite(likelihood: Likelihood, dtype: torch.dtype) -> None:
    extremes = [-1e4, -90.0, 0.0, 90.0, 1e4]
    pairs = list(itertools.product(extremes, repeat=likelihood.parameters_per_channel))
    for mode, pixel in itertools.product((True, False), (0.0, 1.0)):
        outputs = torch.tensor(pairs, dtype=dtype).unsqueeze(-1).unsqueeze(-1).requires_grad_()
        p = likelihood.train(mode)(outputs)
        log_prob = p.log_prob(torch.full((len(pairs), 1, 1, 1), pixel, dtype=dtype))
        (log_prob.sum() + p.mean.sum()).backward()
        assert log_prob.dtype == torch.float32 or isinstance(likelihood, Bernoulli)  # torch's takes that of the images
        assert log_prob.isfinite().all()
        assert p.mean.isfinite().all()
        assert p.sample().isfinite().all()
        assert outputs.grad is not None
        assert outputs.grad.isfinite().all()


def test_everything_learnable_gets_a_gradient_in_a_vae(likelihood: Likelihood) -> None:
    vae = tiny_vae(likelihood.train(), image_shape=(2, 4, 3))
    with torch.autocast("cpu", torch.bfloat16):
        ELBO(2)(vae, torch.rand(5, 2, 4, 3))["loss"].backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_bernoulli_sums_to_one_over_all_binary_images() -> None:
    p = Bernoulli()(torch.randn(1, 1, 3, 3))
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).view(-1, 1, 3, 3)
    torch.testing.assert_close(p.log_prob(images).exp().sum(), torch.tensor(1.0))
    assert Bernoulli().is_normalized(binary=True)


def test_bernoulli_is_no_likelihood_of_grey_images() -> None:
    """With logits l the integral over [0, 1] of p^x (1 - p)^(1 - x) is (2 p - 1) / l, less than one."""
    logit = torch.tensor(1.5)
    x = torch.linspace(0, 1, 2001).view(-1, 1, 1, 1)
    density = Bernoulli()(logit.view(1, 1, 1, 1)).log_prob(x).exp()
    integral = torch.trapezoid(density, x.flatten())
    torch.testing.assert_close(integral, (2 * logit.sigmoid() - 1) / logit, atol=1e-5, rtol=1e-5)
    assert integral < 0.95
    assert not Bernoulli().is_normalized(binary=False)


def test_continuous_bernoulli_is_bernoulli_but_for_a_constant_of_its_outputs() -> None:
    outputs, x = torch.randn(1, 2, 3, 3), torch.rand(7, 2, 3, 3)
    differences = ContinuousBernoulli()(outputs).log_prob(x) - Bernoulli()(outputs).log_prob(x)
    torch.testing.assert_close(differences, differences[0].expand(7), atol=1e-4, rtol=0)
    assert differences[0] > 18 * math.log(2)  # C is at least two


def test_squared_error_is_a_sum_over_pixels_times_its_weight() -> None:
    outputs, x = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    expected = ((x - outputs.sigmoid()) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(-SquaredError()(outputs).log_prob(x), 0.5 * expected)
    torch.testing.assert_close(-SquaredError(weight=1.0)(outputs).log_prob(x), expected)
    assert not SquaredError().is_normalized(binary=False)
    assert not SquaredError().is_normalized(binary=True)


def test_a_gaussian_is_the_squared_error_with_its_constant() -> None:
    outputs, x = torch.randn(4, 3, 4, 4), torch.rand(4, 3, 4, 4)
    constant = 48 * 0.5 * math.log(2 * math.pi * 0.25)
    expected = SquaredError(weight=2.0)(outputs).log_prob(x) - constant
    torch.testing.assert_close(Gaussian(0.5)(outputs).log_prob(x), expected)


def test_no_single_scale_is_likelier_than_the_optimal_one() -> None:
    outputs, x = torch.randn(6, 5, 1, 4, 4), torch.rand(5, 1, 4, 4)
    optimal = Gaussian("optimal").log_prob(outputs.requires_grad_(), x).mean()
    scale = (x - outputs.sigmoid()).square().mean().sqrt().item()
    torch.testing.assert_close(optimal, Gaussian(scale)(outputs).log_prob(x).mean())
    for factor in (0.97, 1.03):
        assert Gaussian(factor * scale)(outputs).log_prob(x).mean() < optimal


def test_the_optimal_scale_gives_the_gradient_of_the_logarithm_of_the_error() -> None:
    """At the optimum -log p is D / 2 log(mean squared error) and a constant (arXiv 2006.13202)."""
    outputs, x = torch.randn(5, 1, 4, 4, requires_grad=True), torch.rand(5, 1, 4, 4)
    loss = -Gaussian("optimal").log_prob(outputs, x).mean()
    expected = 16 / 2 * (x - outputs.sigmoid()).square().mean().log()
    torch.testing.assert_close(
        torch.autograd.grad(loss, outputs), torch.autograd.grad(expected, outputs), atol=1e-6, rtol=1e-4
    )


def test_the_optimal_scale_is_a_running_mean_where_nothing_is_trained() -> None:
    likelihood, errors = Gaussian("optimal"), []
    for _ in range(3):
        outputs, x = torch.randn(5, 1, 4, 4, requires_grad=True), torch.rand(5, 1, 4, 4)
        likelihood.log_prob(outputs, x)
        errors.append((x - outputs.sigmoid()).square().mean())
        torch.testing.assert_close(likelihood.common_scale(), torch.stack(errors).mean().sqrt().detach())
    scale = likelihood.common_scale()
    expected = Gaussian(float(scale))(outputs).log_prob(x)
    with torch.no_grad():
        torch.testing.assert_close(likelihood.log_prob(outputs, x), expected)
    torch.testing.assert_close(likelihood.eval().log_prob(outputs, x), expected)
    assert likelihood.common_scale() == scale
    last = (x - (outputs + 5).sigmoid()).square().mean().sqrt().detach()
    for _ in range(200):  # what is long ago is forgotten
        likelihood.train().log_prob(outputs + 5, x)
    torch.testing.assert_close(likelihood.common_scale(), last, atol=0, rtol=1e-3)


def test_the_optimal_scale_is_a_part_of_the_model() -> None:
    trained, restored = tiny_vae(Gaussian("optimal")), tiny_vae(Gaussian("optimal"))
    for _ in range(2):
        ELBO()(trained, torch.rand(5, 1, 4, 4))
    restored.load_state_dict(trained.state_dict())
    assert isinstance(trained.likelihood, Gaussian)
    assert isinstance(restored.likelihood, Gaussian)
    assert restored.likelihood.common_scale() == trained.likelihood.common_scale() != Gaussian("optimal").common_scale()
    assert restored.likelihood.batches == 2


@pytest.mark.parametrize("kind", [Gaussian, Laplace, DiscretizedLogistic])
def test_scales_start_at_a_tenth_and_stay_between_their_bounds(kind: Any) -> None:
    likelihood: ScaledLikelihood = kind("per_pixel")
    outputs = torch.zeros(2, 2, 4, 4)
    torch.testing.assert_close(likelihood.location_and_scale(outputs)[1], torch.full((2, 1, 4, 4), 0.1))
    torch.testing.assert_close(kind("learned").common_scale(), torch.tensor(0.1))
    for extreme, bound in zip((-1e4, 1e4), likelihood.scale_bounds, strict=True):
        scale = likelihood.location_and_scale(outputs + extreme)[1]
        torch.testing.assert_close(scale, torch.full((2, 1, 4, 4), bound))


def test_a_pixel_that_never_changes_is_worth_no_more_than_half_a_grey_level() -> None:
    black = torch.zeros(2, 1, 4, 4)
    highest = 16 * (math.log(510) - 0.5 * math.log(2 * math.pi))
    outputs = torch.full((2, 1, 4, 4), -1e4, requires_grad=True)
    for likelihood, inputs in (
        (Gaussian("optimal"), outputs),
        (Gaussian("per_pixel"), torch.cat([outputs, outputs], 1)),
    ):
        torch.testing.assert_close(likelihood.log_prob(inputs, black), torch.full((2,), highest))


def test_the_learned_scale_becomes_the_error() -> None:
    """The most likely scale of a Gaussian is the root of the mean square, of a Laplace the mean absolute error."""
    outputs, x = torch.randn(20, 1, 5, 5), torch.rand(20, 1, 5, 5)
    errors = (x - outputs.sigmoid()).abs()
    for likelihood, expected in (
        (Gaussian("learned"), errors.square().mean().sqrt()),
        (Laplace("learned"), errors.mean()),
    ):
        optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            (-likelihood(outputs).log_prob(x).mean()).backward()
            optimizer.step()
        torch.testing.assert_close(likelihood.common_scale(), expected, atol=1e-4, rtol=1e-3)


def test_the_first_half_of_the_channels_are_the_means() -> None:
    outputs = torch.randn(2, 6, 4, 4)
    for likelihood in (Gaussian("per_pixel"), Laplace("per_pixel")):
        torch.testing.assert_close(likelihood(outputs).mean, outputs[:, :3].sigmoid())


def test_levels_between_two_count_as_the_nearest() -> None:
    p = DiscretizedLogistic("per_pixel")(torch.randn(1, 2, 1, 1))
    levels = LEVELS.view(-1, 1, 1, 1)
    for shift in (-0.4 / 255, 0.4 / 255):
        torch.testing.assert_close(p.log_prob(levels + shift), p.log_prob(levels))


def test_an_uncompressed_image_has_eight_bits_per_dimension() -> None:
    log_prob = torch.full((3,), -3 * 5 * 7 * math.log(256))
    torch.testing.assert_close(bits_per_dim(log_prob, (3, 5, 7)), torch.full((3,), 8.0))


@pytest.mark.parametrize("kind", [Gaussian, Laplace, DiscretizedLogistic])
@pytest.mark.parametrize("scale", [0, -0.1, math.inf, math.nan, True, "0.1", "fixed", None])
def test_impossible_scales_are_refused(kind: Any, scale: Any) -> None:
    with pytest.raises(ValueError, match="scale=.*: it must be a finite number above 0, learned"):
        kind(scale)


def test_only_a_gaussian_has_an_optimal_scale() -> None:
    with pytest.raises(ValueError, match="scale=optimal: it must be a finite number above 0, learned or per_pixel"):
        Laplace("optimal")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="scale=best: it must be a finite number above 0, learned, per_pixel or optimal"
    ):
        Gaussian("best")  # type: ignore[arg-type]


def test_an_optimal_scale_forgets_a_batch_of_no_numbers() -> None:
    likelihood = Gaussian("optimal")
    x = torch.rand(4, 1, 3, 3)
    good = torch.randn(4, 1, 3, 3, requires_grad=True)
    likelihood.log_prob(good, x)
    before = likelihood.mean_squared_error.clone()
    likelihood.log_prob(good * float("nan"), x)
    assert torch.equal(likelihood.mean_squared_error, before)
    assert likelihood.batches == 1
    assert likelihood.eval()(good).log_prob(x).isfinite().all()
