"""Scores against closed forms."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from vaelab.evaluation import scores
from vaelab.evaluation.scores import auroc, importance_weighted_bound, score_images
from vaelab.vae import VAE


def _exact(vae: VAE, x: torch.Tensor) -> torch.Tensor:
    weight, bias = vae.decoder.get_parameter("linear.weight"), vae.decoder.get_parameter("linear.bias")
    return MultivariateNormal(bias, weight @ weight.T + 0.7**2 * torch.eye(6)).log_prob(x.flatten(1)).detach()


def test_the_bound_tends_to_the_exact_likelihood_from_below(linear_vae: VAE) -> None:
    x = torch.randn(50, 1, 3, 2)
    gaps = [
        float((_exact(linear_vae, x) - importance_weighted_bound(linear_vae, x, k)).mean()) for k in (1, 10, 10_000)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert abs(gaps[2]) < 0.05


def test_pieces_give_the_same_bound_as_a_whole(linear_vae: VAE, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 1, 3, 2)
    torch.manual_seed(1)
    log_weights = torch.cat([linear_vae.log_weights(x, k) for k in (3, 3, 1)])
    monkeypatch.setattr(scores, "_DECODED_AT_ONCE", 12)
    torch.manual_seed(1)
    expected = log_weights.logsumexp(0) - torch.tensor(7.0).log()
    torch.testing.assert_close(importance_weighted_bound(linear_vae, x, 7), expected.detach())


def test_stored_images_are_scored_in_order(linear_vae: VAE) -> None:
    images = torch.randint(0, 256, (23, 1, 3, 2), dtype=torch.uint8)
    got = score_images(linear_vae, images, torch.zeros(23, dtype=torch.int64), 20_000, "", batch_size=10)
    torch.testing.assert_close(got, _exact(linear_vae, images / 255), atol=0.05, rtol=0)


def test_auroc_is_the_probability_of_the_right_order() -> None:
    inliers, outliers = torch.randint(0, 20, (200,)).float(), torch.randint(-5, 15, (300,)).float()
    differences = inliers[:, None] - outliers[None]
    expected = ((differences > 0).double() + 0.5 * (differences == 0).double()).mean()
    assert auroc(inliers, outliers) == pytest.approx(float(expected))
    assert auroc(torch.ones(3), torch.zeros(2)) == 1
    assert auroc(torch.zeros(3), torch.ones(2)) == 0
    assert auroc(torch.zeros(3), torch.zeros(2)) == 0.5
