"""Importance-weighted bounds against closed forms."""

import pytest
import torch

from tests.evaluation.exact import log_likelihood
from vaelab.models import importance
from vaelab.models.importance import effective_samples, importance_bound, log_weights
from vaelab.models.vae import VAE


def test_the_bound_tends_to_the_exact_likelihood_from_below(linear_vae: VAE) -> None:
    x = torch.randn(50, 1, 3, 2)
    exact = log_likelihood(linear_vae, x)
    gaps = [float((exact - importance_bound(log_weights(linear_vae, x, k))).mean()) for k in (1, 10, 9999)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert abs(gaps[2]) < 0.05


def test_pieces_give_the_same_weights_as_a_whole_and_encode_once(
    linear_vae: VAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(4, 1, 3, 2)
    torch.manual_seed(1)
    expected = torch.cat([linear_vae.log_weights(x, k) for k in (3, 3, 1)])
    monkeypatch.setattr(importance, "_PIXELS_AT_ONCE", 72)
    encoded = []
    linear_vae.encoder.register_forward_hook(lambda *_: encoded.append(1))
    torch.manual_seed(1)
    got = log_weights(linear_vae, x, 7)
    assert torch.equal(got, expected.detach().double())
    assert len(encoded) == 1


def test_the_bound_of_fewer_samples_is_the_mean_over_groups() -> None:
    weights = torch.randn(7, 5, dtype=torch.float64)
    expected = sum(weights[i : i + 3].exp().mean(0).log() for i in (0, 3)) / 2
    torch.testing.assert_close(importance_bound(weights, 3), expected)
    torch.testing.assert_close(importance_bound(weights, 1), weights.mean(0))
    torch.testing.assert_close(importance_bound(weights), weights.exp().mean(0).log())


def test_effective_samples() -> None:
    weights = torch.tensor([[-900.0, 0.0], [-900.0, -50.0], [-900.0, -50.0]], dtype=torch.float64)
    torch.testing.assert_close(effective_samples(weights), torch.tensor([3.0, 1.0], dtype=torch.float64))
