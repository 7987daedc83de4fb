"""Lower bounds on the log-likelihood of images, by importance sampling: see :mod:`vaelab.models.importance`.

The bound is tight if it hardly rises with the number of samples.
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

_STEPS = (1, 10, 100, 1000, 5000)  # usual numbers of importance samples
_IMAGES_AT_ONCE = 100


class Bounds(NamedTuple):
    """Bounds of N images, on the CPU.

    Attributes:
        values: a bound for each number of samples, (N, len(ks)), in nats.
        effective: effective sample size at the largest k, (N,).
        variances: variance of the log weights at the largest k, (N,), in nats squared; 0 for a single sample.
    """

    values: Tensor
    effective: Tensor
    variances: Tensor


def bounds(vae: VAE, images: Tensor, labels: Tensor, ks: Sequence[int], description: str) -> Bounds:
    """Bounds of stored images for several numbers of samples, computed with a progress bar.

    Args:
        vae: the model, in evaluation mode.
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        ks: numbers of samples, in ascending order.
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
    """Bounds on the log-likelihood of each split, for the usual numbers of samples up to ``samples``.

    Args:
        model: to evaluate.
        samples: the largest k.
        splits: of ``train``, ``val`` and ``test``.
        limit: number of images of each split, evenly spaced; ``None`` for all.

    Raises:
        NotApplicable: the loss is not a likelihood of these images.
    """
    if not model.is_normalized:
        raise NotApplicable(
            "this loss is not a likelihood of these images: train with data.binarize=dynamic "
            "or loss=discretized_logistic"
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
        metrics[f"{split}/gap"] = mean_over_images(gap, "nats", f"k={samples} minus k=1 (the ELBO); {of}")
        metrics[f"{split}/effective_samples"] = mean_over_images(sizes, f"of {samples}", of)
        metrics[f"{split}/log_weight_deviation"] = Metric(
            float(variances.mean().sqrt()),
            "nats",
            None,
            f"standard deviation over the samples of an image, root mean square over images; {of}",
        )
        if model.vae.likelihood.has_bits_per_dim:
            bits = bits_per_dim(values[:, -1], model.vae.image_shape)
            metrics[f"{split}/bits_per_dim"] = mean_over_images(bits, "bits/dim", f"k={samples}; {of}")
        curves[split] = (ks, [mean.value for mean in means], [mean.standard_error or 0.0 for mean in means])
    remarks = []
    if "test" in splits and model.vae.classes is None and model.datamodule.limit is None:
        remarks = published(model.datamodule.source.name, model.datamodule.binarization)
        if remarks and not model.splits["test"].is_official:
            remarks.append("published: on the official test images; the values above are on other images")
    return Measurement(metrics, {"likelihood": convergence(curves)} if len(ks) > 1 else {}, remarks)
