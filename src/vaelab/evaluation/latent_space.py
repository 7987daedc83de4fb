"""Metrics of a latent space: active units, parts of the KL divergence, classes and factors in the codes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from vaelab.data.source import Images
from vaelab.evaluation.disentanglement import dci, mutual_information_gap
from vaelab.evaluation.measurement import Measurement, mean_over_images
from vaelab.models.distributions.latents import ACTIVE_VARIANCE, Latent, active_units, dimension_kls
from vaelab.runs.metrics import Metric
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.plots import dimension_bars

_NEIGHBOURS = 5
_PAIRS_AT_ONCE = 200_000
_PROBE_PENALTY = 1e-4


@torch.no_grad()
def aggregate(q_z: Latent, p_z: Latent, description: str) -> tuple[Tensor, Tensor]:
    r"""Samples of the two parts of the ELBO's KL term, for N images x_i with one z_i ~ q(z|x_i) each.

    .. math:: \log \frac{q(z_i|x_i)}{\hat q(z_i)} + \log \frac{\hat q(z_i)}{p(z_i)}, \qquad
        \hat q(z) = \frac1N \sum_j q(z|x_j)

    The mean of the first part is InfoNCE (van den Oord et al. 2018, arXiv 1807.03748). It is a lower bound on the
    mutual information of images and latents, and cannot exceed log N. The mean of the second part is an upper bound on
    KL(q(z) || p(z)) of the aggregate posterior. The sum is the ELBO's KL term (Hoffman and Johnson 2016).

    Args:
        q_z: the posteriors of N images.
        p_z: the prior.
        description: beside the progress bar.

    Returns:
        Both parts, (N,), in nats.
    """
    z, log_q = (values[0] for values in q_z.rsample_and_log_prob((1,)))  # (N, D), (N,)
    count = len(z)
    at_once = max(1, _PAIRS_AT_ONCE // count)
    parts = [q_z.log_prob(part.unsqueeze(-2)) for part in track(z.split(at_once), description, transient=True)]
    log_aggregate = torch.cat(parts).logsumexp(1) - math.log(count)
    return (log_q - log_aggregate).cpu(), (log_aggregate - p_z.log_prob(z)).cpu()


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """The accuracy of a logistic regression from codes (N, D) to classes, fitted to ``train``, on ``test``.

    The codes are standardised. The penalty 0.0001 |w|² is added to the mean cross-entropy: it keeps the weights finite
    if the classes can be separated without error.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # scikit-learn's objective is C times the sum of the cross-entropies, plus |w|² / 2.
    regression = LogisticRegression(C=1 / (2 * _PROBE_PENALTY * len(train)), max_iter=1000)
    one_class = len(train_labels.unique()) == 1  # scikit-learn's regression needs two classes
    probe = make_pipeline(StandardScaler(), DummyClassifier() if one_class else regression)
    probe.fit(train.double().numpy(), train_labels.numpy())
    return float(probe.score(test.double().numpy(), test_labels.numpy()))


def nearest_neighbour_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int = _NEIGHBOURS
) -> float:
    """The accuracy of a classifier by the k nearest codes (N, D) of ``train``, in Euclidean distance, on ``test``.

    In a tie the class with the nearest code wins.
    """
    from sklearn.neighbors import KNeighborsClassifier

    k = min(k, len(train))
    # A rank weighs a little more than all later ranks together. All these excesses together are less than one vote.
    votes = 1 + 2.0 ** -np.arange(1, k + 1) / k
    neighbours = KNeighborsClassifier(k, weights=lambda distances: np.tile(votes, (len(distances), 1)))
    neighbours.fit(train.double().numpy(), train_labels.numpy())
    return float(neighbours.score(test.double().numpy(), test_labels.numpy()))


@torch.no_grad()
def measure(model: TrainedModel, limit: int | None, pairs: int) -> Measurement:
    """Active units, the parts of the KL divergence, and how well the codes predict classes and factors.

    Args:
        model: to evaluate.
        limit: number of training images and of test images, evenly spaced; ``None`` for all.
        pairs: number of test images that are compared with each other for the aggregate posterior.

    Raises:
        NotApplicable: there is a single test image.
    """
    train, test = model.images("train", limit), model.images("test", limit)
    if len(test.images) < 2:
        raise NotApplicable(f"{model.datamodule.source.name} has a single test image, and these metrics need two")
    measurement, codes = _dimensions(model, test)
    _aggregate_posterior(model, pairs, measurement)
    metrics = measurement.metrics
    if model.vae.classes is not None:
        measurement.remarks.append("no accuracy of classes: a conditional model is given the class beside the code")
    elif len(model.datamodule.source.classes) > 1:
        metrics |= _class_accuracies(model, train, test, codes)
    if test.factors is not None:
        names = model.datamodule.source.factor_names  # type: ignore[attr-defined]  # of sources with factors
        metrics |= _disentanglement(model, train, test, codes, names)
    return measurement


def _dimensions(model: TrainedModel, test: Images) -> tuple[Measurement, Tensor]:
    """The metrics of single dimensions, and the codes (N, D) of the test images."""
    means, parts = [], []
    p_z = model.vae.p_z()
    for _, _, q_z in model.posteriors(test):
        means.append(q_z.centre.float().cpu())
        parts.append(dimension_kls(q_z, p_z))
    codes, kls = torch.cat(means), [part for part in parts if part is not None]
    active = active_units(codes)
    note = f"variance of the codes > {ACTIVE_VARIANCE}; {model.protocol('test', len(codes))}"
    metrics = {"active_units": Metric(int(active.sum()), f"of {len(active)}", note=note)}
    measurement = Measurement(metrics, arrays={"mean_variances": codes.var(0).tolist()})
    if kls:
        means_over_images = torch.cat(kls).mean(0).cpu()
        measurement.arrays["dimension_kls"] = means_over_images.tolist()
        measurement.plots["dimensions"] = dimension_bars(means_over_images, active)
    else:
        prior, posterior = (type(part).__name__ for part in (model.vae.prior, model.vae.posterior))
        measurement.remarks.append(f"no KL of single dimensions between {posterior} and {prior}: it has no closed form")
    return measurement, codes


def _aggregate_posterior(model: TrainedModel, pairs: int, measurement: Measurement) -> None:
    """Adds the two parts of the KL divergence, see :func:`aggregate`, and remarks on them."""
    q_z = model.posterior(model.images("test", pairs))
    information, divergence = aggregate(q_z, model.vae.p_z(), "comparing posteriors")
    count = len(information)
    of = f"± assumes independent terms; {model.protocol('test', count)}"
    measurement.metrics |= {
        "mutual_information_lower_bound": mean_over_images(
            information, "nats", f"InfoNCE, at most log {count} = {math.log(count):.2f}; {of}"
        ),
        "aggregate_kl_upper_bound": mean_over_images(
            divergence, "nats", f"sampled KL minus InfoNCE, for KL(q(z) || p(z)) of the aggregate posterior; {of}"
        ),
    }
    if not model.has_variance:
        measurement.remarks.append(
            "this objective does not train the posterior's variance: KL and mutual information are computed with the "
            "untrained initial variance"
        )
    if float(information.mean()) > 0.9 * math.log(count):
        more = ": type a larger latents.pairs=..." if count < len(model.splits["test"].images) else ""
        measurement.remarks.append(
            f"the mutual information is near log {count}, the most that {count} images can show, so both bounds are "
            f"loose{more}"
        )


def _class_accuracies(model: TrainedModel, train: Images, test: Images, codes: Tensor) -> dict[str, Metric]:
    """The accuracies of classifiers of codes: fitted to training images, tested on test images."""
    train_codes = model.codes(train)
    of = f"on {len(codes):,} test images, fitted to the codes of {len(train_codes):,} training images"
    metrics = {}
    for name, accuracy, method in (
        ("linear_probe", linear_probe, "logistic regression"),
        ("nearest_neighbours", nearest_neighbour_accuracy, f"{_NEIGHBOURS} nearest, Euclidean"),
    ):
        value = accuracy(train_codes, train.labels, codes, test.labels)
        metrics[f"{name}_accuracy"] = Metric(value, "", (value * (1 - value) / len(codes)) ** 0.5, f"{method}, {of}")
    return metrics


def _disentanglement(
    model: TrainedModel, train: Images, test: Images, codes: Tensor, names: Sequence[str]
) -> dict[str, Metric]:
    """Metrics of disentanglement; none if there is a single latent dimension."""
    assert train.factors is not None
    assert test.factors is not None
    if codes.shape[1] < 2:
        return {}
    of = f"on {len(codes):,} test images; factors {', '.join(names)}"
    known = test.factors
    if model.vae.classes is None:
        known, names = torch.cat([test.labels[:, None].float(), known], 1), ("class", *names)
    gaps = mutual_information_gap(codes, known)
    of_each = ", ".join(f"{name} {gap:.2f}" for name, gap in zip(names, gaps.tolist(), strict=True))
    metrics = {"mig": Metric(float(gaps.mean()), "", None, f"mutual information gap, 20 bins, {of}: {of_each}")}
    if train.factors.shape[1] > 1:
        for name, value in dci(model.codes(train), train.factors, codes, test.factors).items():
            metrics[f"dci_{name}"] = Metric(value, "", None, f"DCI by lasso, {of}")
    return metrics
