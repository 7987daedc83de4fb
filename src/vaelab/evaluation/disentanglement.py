"""Disentanglement: how well single latent dimensions follow single generating factors, if these are known."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BINS = 20
_PENALTIES = np.logspace(-3, -0.5, 11)


def mutual_information_gap(codes: Tensor, factors: Tensor) -> Tensor:
    r"""Mutual information gap (MIG): a factor's two most informative dimensions differ by this much.

    .. math:: \frac{1}{H(v)} \left[ I(z_{j^*}; v) - \max_{j \neq j^*} I(z_j; v) \right]

    Chen et al. (2018), arXiv 1802.04942. Posterior means and factors are put into 20 bins each, as by Locatello et al.
    (2019), arXiv 1811.12359. The gap is from 0 to 1.

    Args:
        codes: posterior means (N, D), D at least 2.
        factors: values (N, F); a factor with at most 20 different values, such as a class, is not binned.

    Returns:
        The gap of each factor, (F,).
    """
    from sklearn.metrics import mutual_info_score

    latents = [_bins(column) for column in codes.T]
    gaps = []
    for factor in factors.T:
        values = _bins(factor)
        known = torch.tensor([mutual_info_score(values, latent) for latent in latents], dtype=torch.float64)
        first, second = known.topk(2).values
        entropy = mutual_info_score(values, values)
        gaps.append((first - second) / max(entropy, 1e-12))  # the gap of a constant factor is 0
    return torch.stack(gaps)


def _bins(values: Tensor) -> npt.NDArray[np.int64]:
    different, index = values.unique(return_inverse=True)
    if len(different) > _BINS:
        low, high = values.min(), values.max()
        index = ((values - low) / (high - low) * _BINS).long().clamp(max=_BINS - 1)
    return index.numpy()


def dci(train: Tensor, train_factors: Tensor, test: Tensor, test_factors: Tensor) -> dict[str, float]:
    r"""Disentanglement, completeness and informativeness (Eastwood and Williams 2018, DCI), with lasso regressors.

    A lasso predicts each standardised factor from the standardised codes. Its penalty is the best one on a fifth of
    the training images. The importance :math:`R_{ij}` of dimension i for factor j is the absolute value of its weight.

    - Disentanglement: one minus the normalised entropy of a dimension's importances, averaged over dimensions with
      their importance as weight.
    - Completeness: one minus the normalised entropy of a factor's importances, averaged over factors.
    - Informativeness: R² on the test images, averaged over factors.

    Args:
        train, test: posterior means (N, D), D at least 2.
        train_factors, test_factors: ordered values (N, F), F at least 2.
    """
    from sklearn.metrics import r2_score
    from sklearn.preprocessing import StandardScaler

    code_scale, factor_scale = StandardScaler(), StandardScaler()
    codes = code_scale.fit_transform(train.double().numpy())
    factors = factor_scale.fit_transform(train_factors.double().numpy())
    weights = np.stack([_lasso(codes, factor) for factor in factors.T], 1)  # (D, F)
    predicted = code_scale.transform(test.double().numpy()) @ weights
    share = r2_score(factor_scale.transform(test_factors.double().numpy()), predicted)
    importance = torch.from_numpy(np.abs(weights))
    return {
        "disentanglement": float(
            (_concentration(importance) * importance.sum(1)).sum() / importance.sum().clamp(min=1e-12)
        ),
        "completeness": float(_concentration(importance.T).mean()),
        "informativeness": float(share),
    }


def _concentration(importance: Tensor) -> Tensor:
    """One minus the normalised entropy of each row (M, n), shape (M,), from 0 to 1; 0 for a row of zeros."""
    total = importance.sum(1)
    rows = importance / total.clamp(min=1e-12).unsqueeze(1)
    return torch.where(total > 0, 1 - torch.special.entr(rows).sum(1) / math.log(importance.shape[1]), 0.0)


def _lasso(codes: npt.NDArray[np.float64], factor: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights (D,) of a lasso from codes (N, D) to a factor (N,). A fifth of the rows selects the penalty."""
    from sklearn.linear_model import LassoCV

    held_out = np.arange(len(codes)) % 5 == 0
    split = [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]
    # The default tolerance, 1e-4, selects a penalty 5 to 10 times too large if the codes determine the factor.
    lasso = LassoCV(alphas=_PENALTIES, cv=split, fit_intercept=False, tol=1e-8, max_iter=10_000)
    return lasso.fit(codes, factor).coef_
