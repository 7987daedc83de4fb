"""How a model uses its latent space, and what can be read from it."""

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
    r"""Samples of what makes up the rate, for N images x_i that stand for the data, with one z_i ~ q(z|x_i) each.

    .. math:: \log \frac{q(z_i|x_i)}{\hat q(z_i)} + \log \frac{\hat q(z_i)}{p(z_i)}, \qquad
        \hat q(z) = \frac1N \sum_j q(z|x_j)

    The mean of the first is InfoNCE (van den Oord et al. 2018, arXiv 1807.03748): a lower bound on the mutual
    information of images and latents, which cannot exceed log N. The mean of the second is therefore at least
    KL(q(z) || p(z)) of the aggregate posterior. Together they are the ELBO's KL term (Hoffman and Johnson 2016).

    Args:
        q_z: the posteriors of N images.
        p_z: the prior.
        description: beside the progress bar.

    Returns:
        Both, (N,), in nats.
    """
    z, log_q = (values[0] for values in q_z.rsample_and_log_prob((1,)))  # (N, D), (N,)
    count = len(z)
    at_once = max(1, _PAIRS_AT_ONCE // count)
    parts = [q_z.log_prob(part.unsqueeze(-2)) for part in track(z.split(at_once), description, transient=True)]
    log_aggregate = torch.cat(parts).logsumexp(1) - math.log(count)
    return (log_q - log_aggregate).cpu(), (log_aggregate - p_z.log_prob(z)).cpu()


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """The accuracy of a logistic regression from codes (N, D) to classes, fitted to one set and tried on another.

    It is scikit-learn's, of standardised codes, with the penalty 0.0001 |w|² beside the mean cross-entropy: the least
    that keeps weights finite where classes can be told apart without error.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # scikit-learn's objective is C times the sum of the cross-entropies, plus |w|² / 2.
    regression = LogisticRegression(C=1 / (2 * _PROBE_PENALTY * len(train)), max_iter=1000)
    one_class = len(train_labels.unique()) == 1  # which scikit-learn's regression refuses
    probe = make_pipeline(StandardScaler(), DummyClassifier() if one_class else regression)
    probe.fit(train.double().numpy(), train_labels.numpy())
    return float(probe.score(test.double().numpy(), test_labels.numpy()))


def nearest_neighbour_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int = _NEIGHBOURS
) -> float:
    """How often most of the k codes (N, D) nearest to a code, in Euclidean distance, are of its class.

    A tie goes to the class with the nearest of them.
    """
    from sklearn.neighbors import KNeighborsClassifier

    k = min(k, len(train))
    # Each rank has a little more weight than all after it together, and all of them together less than one more vote.
    votes = 1 + 2.0 ** -np.arange(1, k + 1) / k
    neighbours = KNeighborsClassifier(k, weights=lambda distances: np.tile(votes, (len(distances), 1)))
    neighbours.fit(train.double().numpy(), train_labels.numpy())
    return float(neighbours.score(test.double().numpy(), test_labels.numpy()))


def measure(model: TrainedModel, limit: int | None, pairs: int) -> Measurement:
    """Active units, the parts of the KL divergence, and how well classes and factors can be read from the codes.

    Args:
        model: what is evaluated.
        limit: how many training and how many test images, evenly spaced; ``None`` for all of them.
        pairs: how many test images are compared with each other for the aggregate posterior.

    Raises:
        NotMeasured: there is a single test image, over which nothing varies.
    """
    train, test = model.images("train", limit), model.images("test", limit)
    if len(test.images) < 2:
        raise NotApplicable(f"{model.datamodule.source.name} has a single test image, over which nothing varies")
    means, parts = [], []
    with torch.no_grad():
        p_z = model.vae.p_z()
        for x, y in model.batches(test):
            q_z = model.vae.encode(x, y)
            means.append(q_z.centre.float().cpu())
            parts.append(dimension_kls(q_z, p_z))
    codes, kls = torch.cat(means), [part for part in parts if part is not None]
    of = model.protocol("test", len(codes))
    active = active_units(codes)
    note = f"variance of the codes > {ACTIVE_VARIANCE}; {of}"
    metrics = {"active_units": Metric(int(active.sum()), f"of {len(active)}", note=note)}
    measurement = Measurement(metrics, arrays={"mean_variances": codes.var(0).tolist()})
    if not kls:
        prior, posterior = (type(part).__name__ for part in (model.vae.prior, model.vae.posterior))
        measurement.remarks.append(f"no KL of single dimensions between {posterior} and {prior}: it has no closed form")
    else:
        each = torch.cat(kls).mean(0).cpu()
        measurement.arrays["dimension_kls"] = each.tolist()
        measurement.pictures["dimensions"] = dimension_bars(each, active)
    q_z = model.posterior(model.images("test", pairs))
    information, divergence = aggregate(q_z, p_z, "comparing posteriors")
    count = len(information)
    of = f"± as if its terms were independent; {model.protocol('test', count)}"
    metrics |= {
        "mutual_information_lower_bound": mean_over_images(
            information, "nats", f"InfoNCE, at most log {count} = {math.log(count):.2f}; {of}"
        ),
        "aggregate_kl_upper_bound": mean_over_images(
            divergence, "nats", f"the sampled KL less InfoNCE, of KL(q(z) || p(z)) of the aggregate posterior; {of}"
        ),
    }
    if not model.has_variance:
        measurement.remarks.append(
            "the training knew no variance of the posterior: KL divergences and mutual information are of one that is "
            "as the weights began"
        )
    if float(information.mean()) > 0.9 * math.log(count):
        measurement.remarks.append(
            f"the mutual information is more than {count} images can show (log {count} nats), and the aggregate "
            "posterior's KL less than its bound: latents.pairs=..."
        )
    if model.vae.classes is not None:
        measurement.remarks.append("no class is read from the codes of a model that is told it")
    elif len(model.datamodule.source.classes) > 1:
        metrics |= _readable(model, train, test, codes)
    if test.factors is not None:
        names = model.datamodule.source.factor_names  # type: ignore[attr-defined]  # of sources with factors
        metrics |= _disentangled(model, train, test, codes, names)
    return measurement


def _readable(model: TrainedModel, train: Images, test: Images, codes: Tensor) -> dict[str, Metric]:
    """How well classes can be read from codes."""
    train_codes = model.codes(train)
    of = f"of {len(codes):,} test images, from the codes of {len(train_codes):,} training images"
    metrics = {}
    for name, accuracy, how in (
        ("linear_probe", linear_probe, "logistic regression"),
        ("nearest_neighbours", nearest_neighbour_accuracy, f"{_NEIGHBOURS} nearest, Euclidean"),
    ):
        value = accuracy(train_codes, train.labels, codes, test.labels)
        metrics[f"{name}_accuracy"] = Metric(value, "", (value * (1 - value) / len(codes)) ** 0.5, f"{how}, {of}")
    return metrics


def _disentangled(
    model: TrainedModel, train: Images, test: Images, codes: Tensor, names: Sequence[str]
) -> dict[str, Metric]:
    """How far single dimensions follow single factors."""
    assert train.factors is not None
    assert test.factors is not None
    of = f"of {len(codes):,} test images; factors {', '.join(names)}"
    metrics = {}
    if codes.shape[1] > 1:
        known = test.factors
        if model.vae.classes is None:
            known, names = torch.cat([test.labels[:, None].float(), known], 1), ("class", *names)
        gaps = mutual_information_gap(codes, known)
        each = ", ".join(f"{name} {gap:.2f}" for name, gap in zip(names, gaps.tolist(), strict=True))
        metrics["mig"] = Metric(float(gaps.mean()), "", None, f"mutual information gap, 20 bins, {of}: {each}")
        several = train.factors.shape[1] > 1
        for name, value in dci(model.codes(train), train.factors, codes, test.factors).items() if several else ():
            metrics[f"dci_{name}"] = Metric(value, "", None, f"DCI by lasso, {of}")
    return metrics
