"""What is called a likelihood sums to one; what is not, says so."""

import itertools

import torch

from vaelab.likelihoods import Bernoulli, SquaredError


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


def test_bernoulli_is_finite_for_extreme_logits_and_pixels() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        outputs = torch.tensor([-1e4, 1e4, -90.0, 90.0], dtype=dtype).view(1, 1, 2, 2).requires_grad_()
        for pixel in (0.0, 1.0):
            log_prob = Bernoulli()(outputs).log_prob(torch.full((1, 1, 2, 2), pixel))
            log_prob.sum().backward()
            assert log_prob.isfinite().all()
            assert outputs.grad is not None
            assert outputs.grad.isfinite().all()


def test_squared_error_is_a_sum_over_pixels_times_its_weight() -> None:
    outputs, x = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    expected = ((x - outputs.sigmoid()) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(-SquaredError()(outputs).log_prob(x), 0.5 * expected)
    torch.testing.assert_close(-SquaredError(weight=1.0)(outputs).log_prob(x), expected)
    assert not SquaredError().is_normalized(binary=False)
    assert not SquaredError().is_normalized(binary=True)
