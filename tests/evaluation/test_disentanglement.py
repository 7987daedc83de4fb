"""Disentanglement where it is perfect, and where there is none."""

import pytest
import torch
from torch import Tensor

from vaelab.evaluation.disentanglement import _PENALTIES, _lasso, dci, mutual_information_gap


def test_codes_that_are_the_factors_are_disentangled() -> None:
    factors = torch.rand(4000, 3)
    codes = torch.cat([-2 * factors, 0.01 * torch.randn(4000, 2)], 1)
    assert (mutual_information_gap(codes, factors) > 0.9).all()
    figures = dci(codes[:3000], factors[:3000], codes[3000:], factors[3000:])
    assert figures["disentanglement"] > 0.95
    assert figures["completeness"] > 0.95
    assert figures["informativeness"] == pytest.approx(1, abs=0.01)


def test_codes_that_mix_the_factors_are_not() -> None:
    factors = torch.randn(4000, 2)
    codes = factors @ torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    assert (mutual_information_gap(codes, factors) < 0.05).all()
    figures = dci(codes[:3000], factors[:3000], codes[3000:], factors[3000:])
    assert figures["disentanglement"] < 0.05
    assert figures["completeness"] < 0.05
    assert figures["informativeness"] == pytest.approx(1, abs=0.01)


def test_codes_that_know_nothing_tell_nothing() -> None:
    factors, codes = torch.randn(4000, 2), torch.randn(4000, 5)
    assert (mutual_information_gap(codes, factors) < 0.02).all()
    assert dci(codes[:3000], factors[:3000], codes[3000:], factors[3000:])["informativeness"] == pytest.approx(
        0, abs=0.02
    )


def test_a_class_is_a_factor_as_it_is() -> None:
    classes = torch.arange(3000) % 3
    codes = torch.stack([classes + 0.1 * torch.rand(3000), torch.rand(3000)], 1)
    assert float(mutual_information_gap(codes, classes[:, None].float())) > 0.98


def test_the_lasso_of_uncorrelated_codes_is_a_soft_threshold_with_the_penalty_of_the_held_out_fifth() -> None:
    held_out = torch.arange(50) % 5 == 0
    x = torch.zeros(50, 4, dtype=torch.float64)
    for rows in (held_out, ~held_out):  # uncorrelated in both parts, and so in all
        x[rows] = torch.linalg.qr(torch.randn(int(rows.sum()), 4, dtype=torch.float64)).Q * float(rows.sum()) ** 0.5
    penalties = torch.from_numpy(_PENALTIES)[:, None]
    chosen = set()
    for noise in (0.01, 0.5, 3.0):
        y = x @ torch.tensor([1.0, -0.2, 0.0, 0.0], dtype=torch.float64) + noise * torch.randn(50, dtype=torch.float64)

        def soft_threshold(rows: Tensor, y: Tensor = y) -> Tensor:
            least_squares = x[rows].T @ y[rows] / rows.sum()
            return least_squares.sign() * (least_squares.abs() - penalties).relu()

        errors = (y[held_out] - soft_threshold(~held_out) @ x[held_out].T).square().mean(1)
        best = int(errors.argmin())
        chosen.add(best)
        expected = soft_threshold(torch.ones(50, dtype=torch.bool))[best]
        torch.testing.assert_close(torch.from_numpy(_lasso(x.numpy(), y.numpy())), expected, atol=1e-5, rtol=0)
    assert len(chosen) > 1


def test_the_mutual_information_of_two_halves() -> None:
    """Of four equal values, one dimension knows which half (log 2 of log 4 nats), the other nothing."""
    factor = torch.arange(400) % 4
    codes = torch.stack([(factor >= 2).float(), torch.zeros(400)], 1)
    torch.testing.assert_close(
        mutual_information_gap(codes, factor[:, None].float()), torch.tensor([0.5], dtype=torch.float64)
    )
