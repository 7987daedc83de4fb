"""The log-likelihood of images, estimated from below by importance sampling: see :mod:`vaelab.models.importance`.

How much the bound still rises with the number of samples is how much to trust it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from rich.progress import track
from torch import Tensor

from vaelab.data.batches import to_floats
from vaelab.evaluation.measurement import Measurement, mean_over_images
from vaelab.evaluation.published import published
from vaelab.models.importance import effective_samples, importance_bound, log_weights
from vaelab.models.likelihoods import bits_per_dim
from vaelab.models.vae import VAE
from vaelab.runs.metrics import Metric
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.plots import convergence

_STEPS = (1, 10, 100, 1000, 5000)  # the numbers of samples that are usual
_IMAGES_AT_ONCE = 100


class Bounds(NamedTuple):
    """What importance samples say of images, on the CPU.

    Attributes:
        values: the bounds for several numbers of samples, (N, len(ks)), in nats.
        effective: the effective number of the largest k's samples, (N,).
        variances: of their log weights, (N,), in nats squared; 0 of a single one.
    """

    values: Tensor
    effective: Tensor
    variances: Tensor


def bounds(vae: VAE, images: Tensor, labels: Tensor, ks: Sequence[int], description: str) -> Bounds:
    """The bounds of stored images for several numbers of samples, with a progress bar.

    Args:
        vae: the model, in evaluation mode.
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        ks: rising.
        description: beside the progress bar.
    """
    device = next(vae.parameters()).device
    parts = list(zip(images.split(_IMAGES_AT_ONCE), labels.split(_IMAGES_AT_ONCE), strict=True))
    found = []
    for x, y in track(parts, description, transient=True):
        weights = log_weights(vae, to_floats(x.to(device)), ks[-1], y.to(device))
        values = torch.stack([importance_bound(weights, k) for k in ks], 1)
        variances = weights.var(0, correction=min(1, len(weights) - 1))
        found.append((values, effective_samples(weights), variances))
    return Bounds(*(torch.cat(of_all) for of_all in zip(*found, strict=True)))


def measure(model: TrainedModel, samples: int, splits: Sequence[str], limit: int | None) -> Measurement:
    """The log-likelihood of splits, with its standard error over images and what it was with fewer samples.

    Args:
        model: what is evaluated.
        samples: the largest k.
        splits: of ``train``, ``val`` and ``test``.
        limit: how many images of each, evenly spaced; ``None`` for all of them.

    Raises:
        NotMeasured: the loss is no likelihood of these images.
    """
    if not model.is_normalized:
        raise NotApplicable(
            "this loss is no likelihood of these images: train with data.binarize=dynamic, or loss=discretized_logistic"
        )
    ks = [*(k for k in _STEPS if k < samples), samples]
    metrics: dict[str, Metric] = {}
    curves = {}
    for split in splits:
        images, labels = model.images(split, limit)[:2]
        values, sizes, variances = bounds(model.vae, images, labels, ks, f"log-likelihood of {split} images")
        of = f"{model.protocol(split, len(images))}{model.given}"
        means = [mean_over_images(value, "nats", of) for value in values.T]
        metrics |= {f"{split}/log_likelihood, k={k}": mean for k, mean in zip(ks, means, strict=True)}
        gap = values[:, -1] - values[:, 0]
        metrics[f"{split}/gap"] = mean_over_images(gap, "nats", f"k={samples} less k=1, the ELBO; {of}")
        metrics[f"{split}/effective_samples"] = mean_over_images(sizes, f"of {samples}", of)
        metrics[f"{split}/log_weight_deviation"] = Metric(
            float(variances.mean().sqrt()), "nats", None, f"of single samples of an image, root mean square; {of}"
        )
        if model.vae.likelihood.has_bits_per_dim:
            bits = bits_per_dim(values[:, -1], model.vae.image_shape)
            metrics[f"{split}/bits_per_dim"] = mean_over_images(bits, "bits/dim", f"k={samples}; {of}")
        curves[split] = (ks, [mean.value for mean in means], [mean.standard_error or 0.0 for mean in means])
    beside = []
    if "test" in splits and model.vae.classes is None and model.datamodule.limit is None:
        beside = published(model.datamodule.source.name, model.datamodule.binarization)
        if beside and not model.splits["test"].is_official:
            beside.append("published: of the official test images, which these are not")
    return Measurement(metrics, {"likelihood": convergence(curves)} if len(ks) > 1 else {}, beside)
