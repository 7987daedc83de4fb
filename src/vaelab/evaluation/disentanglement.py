"""How far single latent dimensions follow single generating factors, of data sets whose factors are known."""

import math

import torch
from torch import Tensor

_BINS = 20
_PENALTIES = torch.logspace(-3, -0.5, 11, dtype=torch.float64)
_STEPS = 500


def mutual_information_gap(codes: Tensor, factors: Tensor) -> Tensor:
    r"""MIG: by how much the dimension that knows most of a factor knows more of it than any other.

    .. math:: \frac{1}{H(v)} \left[ I(z_{j^*}; v) - \max_{j \neq j^*} I(z_j; v) \right]

    Chen et al. (2018), arXiv 1802.04942, with the posteriors' means and factors in 20 bins each (as Locatello et al.
    2019, arXiv 1811.12359). From 0 to 1.

    Args:
        codes: posterior means (N, D), D at least 2.
        factors: values (N, F); one with at most 20 different values, like a class, is taken as it is.

    Returns:
        A gap for each factor, (F,).
    """
    latents = [_bins(column) for column in codes.T]
    gaps = []
    for factor in factors.T:
        values = _bins(factor)
        joint = torch.stack([_joint(latent, values) for latent in latents])  # (D, bins, bins)
        known = _entropy(joint.sum(1)) + _entropy(joint.sum(2)) - _entropy(joint.flatten(1))
        first, second = known.topk(2).values
        gaps.append((first - second) / _entropy(joint[0].sum(0)).clamp(min=1e-12))  # 0 of what never varies
    return torch.stack(gaps)


def _bins(values: Tensor) -> Tensor:
    different, index = values.unique(return_inverse=True)
    if len(different) <= _BINS:
        return index
    low, high = values.min(), values.max()
    return ((values - low) / (high - low) * _BINS).long().clamp(max=_BINS - 1)


def _joint(a: Tensor, b: Tensor) -> Tensor:
    counts = torch.bincount(a * _BINS + b, minlength=_BINS**2).double()
    return (counts / counts.sum()).view(_BINS, _BINS)


def _entropy(probabilities: Tensor) -> Tensor:
    return -torch.special.xlogy(probabilities, probabilities).sum(-1)


def dci(train: Tensor, train_factors: Tensor, test: Tensor, test_factors: Tensor) -> dict[str, float]:
    r"""Disentanglement, completeness and informativeness (Eastwood and Williams 2018, DCI), with lasso regressors.

    The importance :math:`R_{ij}` of dimension i for factor j is the size of its weight in a lasso that predicts the
    standardised factor from the standardised codes, with the penalty that does best on a fifth of the training images.
    Disentanglement: one minus the entropy of a dimension's importances, in units of the largest it could be, averaged
    over dimensions by their importance; completeness: the same of a factor's, a plain average. Informativeness is given
    as R², the share of the factor's variance that is predicted, averaged over factors.

    Args:
        train, test: posterior means (N, D), D at least 2.
        train_factors, test_factors: numbers (N, F), F at least 2; an order must mean something.
    """
    codes, code_scale = _standardised(train.double())
    factors, factor_scale = _standardised(train_factors.double())
    held_out = torch.arange(len(codes)) % 5 == 0
    candidates = _lasso(codes[~held_out], factors[~held_out], _PENALTIES)  # (P, D, F)
    errors = (factors[held_out] - codes[held_out] @ candidates).square().mean(1)  # (P, F)
    best = errors.argmin(0)  # a penalty for each factor
    fits = _lasso(codes, factors, _PENALTIES)
    weights = torch.stack([fits[penalty, :, j] for j, penalty in enumerate(best.tolist())], 1)  # (D, F)
    predicted = code_scale(test.double()) @ weights
    true = factor_scale(test_factors.double())
    share = 1 - (true - predicted).square().mean(0) / (true - true.mean(0)).square().mean(0).clamp(min=1e-12)
    importance = weights.abs()
    return {
        "disentanglement": float(
            (_concentration(importance) * importance.sum(1)).sum() / importance.sum().clamp(min=1e-12)
        ),
        "completeness": float(_concentration(importance.T).mean()),
        "informativeness": float(share.mean()),
    }


def _concentration(importance: Tensor) -> Tensor:
    """How much of each row (M, n) is in one place, (M,), from 0 to 1; 0 of a row that is empty."""
    total = importance.sum(1)
    rows = importance / total.clamp(min=1e-12).unsqueeze(1)
    return torch.where(total > 0, 1 - _entropy(rows) / math.log(importance.shape[1]), 0.0)


def _standardised(values: Tensor):  # type: ignore[no-untyped-def]
    mean, std = values.mean(0), values.std(0).clamp(min=1e-12)

    def scale(others: Tensor) -> Tensor:
        return (others - mean) / std

    return scale(values), scale


def _lasso(x: Tensor, y: Tensor, penalties: Tensor) -> Tensor:
    r"""Weights W (P, D, F) that minimise :math:`\frac{1}{2N} |y - x W|^2 + \alpha |W|_1`, for each penalty.

    By FISTA (Beck and Teboulle 2009).
    """
    gram, target = x.T @ x / len(x), x.T @ y / len(x)
    step = 1 / torch.linalg.eigvalsh(gram)[-1].clamp(min=1e-12)
    weights = ahead = target.new_zeros(len(penalties), *target.shape)
    momentum = 1.0
    for _ in range(_STEPS):
        moved = ahead - step * (gram @ ahead - target)
        new = moved.sign() * (moved.abs() - step * penalties.view(-1, 1, 1)).relu()
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / following * (new - weights)
        weights, momentum = new, following
    return weights
