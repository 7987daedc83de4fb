"""Disentanglement where it is perfect, and where there is none."""

import pytest
import torch

from vaelab.evaluation.disentanglement import _lasso, dci, mutual_information_gap


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


def test_the_lasso_of_uncorrelated_codes_is_a_soft_threshold() -> None:
    x = torch.linalg.qr(torch.randn(50, 4, dtype=torch.float64)).Q * 50**0.5
    y = torch.randn(50, 2, dtype=torch.float64)
    least_squares = x.T @ y / 50
    penalties = torch.tensor([0.01, 0.1], dtype=torch.float64)
    expected = torch.stack([least_squares.sign() * (least_squares.abs() - p).relu() for p in penalties])
    torch.testing.assert_close(_lasso(x, y, penalties), expected)
