"""Scores against closed forms."""

import pytest
import torch

from tests.evaluation.exact import log_likelihood
from vaelab.data.source import Images
from vaelab.evaluation.out_of_distribution import auroc, score
from vaelab.models.vae import VAE


def test_stored_images_are_scored_in_order(linear_vae: VAE) -> None:
    images = Images(torch.randint(0, 256, (123, 1, 3, 2), dtype=torch.uint8), torch.zeros(123, dtype=torch.int64))
    got = score(linear_vae, images, 10_000, "")
    torch.testing.assert_close(got.float(), log_likelihood(linear_vae, images.images / 255), atol=0.1, rtol=0)


def test_auroc_is_the_probability_of_the_right_order() -> None:
    inliers, outliers = torch.randint(0, 20, (200,)).float(), torch.randint(-5, 15, (300,)).float()
    differences = inliers[:, None] - outliers[None]
    expected = ((differences > 0).double() + 0.5 * (differences == 0).double()).mean()
    assert auroc(inliers, outliers) == pytest.approx(float(expected))
    assert auroc(torch.ones(3), torch.zeros(2)) == 1
    assert auroc(torch.zeros(3), torch.ones(2)) == 0
    assert auroc(torch.zeros(3), torch.zeros(2)) == 0.5


@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_auroc_does_not_depend_on_where_scores_lie(shift: float) -> None:
    """Log-likelihoods are often below -745 nats, where a logistic function of 64 bits is 0."""
    inliers, outliers = torch.randn(200).double(), torch.randn(300).double() - 1
    assert auroc(inliers + shift, outliers + shift) == auroc(inliers, outliers)
    assert auroc(torch.tensor([0.0, torch.inf]), torch.tensor([-torch.inf, 0.0])) == 0.875
