"""Out-of-distribution detection: a score for every image, an estimate of its log-likelihood.

If the loss is not a likelihood of the images, the score is not a log-likelihood. It still ranks the images.

A generative model can give simpler images of another data set *higher* likelihoods than its own images (Nalisnick et
al. 2019, arXiv 1810.09136).
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vaelab.data.batches import to_floats
from vaelab.data.source import Images
from vaelab.evaluation.likelihood import bounds
from vaelab.evaluation.measurement import Measurement, mean_over_images
from vaelab.models.vae import VAE
from vaelab.runs.metrics import Metric
from vaelab.runs.trained_model import TrainedModel, evenly_spaced
from vaelab.runtime.errors import UserError
from vaelab.runtime.files import write_csv
from vaelab.visualization.plots import RGBImage, labelled_grid


class Against(NamedTuple):
    """Another data set, to distinguish from the model's own.

    Attributes:
        model: a model with the other data set.
        has_model: whether this model was trained on that data set.
    """

    model: TrainedModel
    has_model: bool


def score(vae: VAE, images: Images, samples: int, description: str) -> Tensor:
    """The bound on log p(x) of each image, (N,), with this number of importance samples, on the CPU."""
    return bounds(vae, images.images, images.labels, [samples], description).values[:, 0]


def auroc(inliers: Tensor, outliers: Tensor) -> float:
    """Area under the ROC curve: the probability that an inlier scores higher than an outlier. A tie counts half.

    Args:
        inliers, outliers: scores, shapes (N,) and (M,).
    """
    # torchmetrics' AUROC treats scores outside [0, 1] as logits, and rounds those far from 0 to the same value.
    from sklearn.metrics import roc_auc_score

    ranks = torch.cat([inliers, outliers]).unique(return_inverse=True)[1]  # scores may be infinite, ranks are not
    return float(roc_auc_score([1] * len(inliers) + [0] * len(outliers), ranks.numpy()))


def check_comparable(model: TrainedModel, other: TrainedModel) -> None:
    """Checks that the images of the two data sets differ in content only.

    Raises:
        UserError: binarization or shape differ, or a model is conditional.
    """
    name, other_name = model.datamodule.source.name, other.datamodule.source.name
    if model.vae.classes is not None or other.vae.classes is not None:
        raise UserError(
            "against: a conditional model needs the class of every image, and the two data sets have different classes"
        )
    if other.datamodule.binarization != model.datamodule.binarization:
        raise UserError(
            f"against: images of {other_name} have binarize={other.datamodule.binarization} and those of {name} have "
            f"binarize={model.datamodule.binarization}, which alone would distinguish them: choose runs with the same"
        )
    if tuple(other.datamodule.image_shape) != model.vae.image_shape:
        raise UserError(
            f"against: images of {other_name} have shape {list(other.datamodule.image_shape)}, and the model needs "
            f"{list(model.vae.image_shape)}: choose a data set of that shape"
        )


def measure(
    model: TrainedModel, samples: int, limit: int | None, extremes: int, folder: Path, against: Against | None
) -> Measurement:
    """Scores of test images and of another data set if there is one: their files and metrics.

    Args:
        model: to evaluate.
        samples: importance samples for each image.
        limit: number of test images of each data set, evenly spaced; ``None`` for all.
        extremes: number of the most and of the least likely images that are shown.
        folder: of ``scores.csv``.
        against: another data set that passes :func:`check_comparable`.
    """
    source = model.datamodule.source
    images = model.images("test", limit)
    scores = score(model.vae, images, samples, "scoring test images")
    numbers = evenly_spaced(len(model.splits["test"].images), limit)
    _write(numbers, scores, images, source.classes, folder / "scores.csv")

    def mean(values: Tensor, protocol: str) -> Metric:
        return mean_over_images(values, model.unit, f"k={samples}; {protocol}{model.given}")

    metrics = {"mean": mean(scores, model.protocol("test", len(scores)))}
    measurement = Measurement(metrics, {"extremes": _extremes(scores, images.images, extremes)})
    if against is None:
        return measurement
    other = against.model
    name, other_name = source.name, other.datamodule.source.name
    others = other.images("test", limit)
    other_scores = score(model.vae, others, samples, f"scoring {other_name}")
    numbers = evenly_spaced(len(other.splits["test"].images), limit)
    _write(numbers, other_scores, others, other.datamodule.source.classes, folder / "scores_against.csv")
    metrics["mean_against"] = mean(other_scores, f"{other_name}, {other.protocol('test', len(other_scores))}")
    note = f"probability that an image of {name} scores higher than one of {other_name}"
    metrics["auroc"] = Metric(auroc(scores, other_scores), "", None, note)
    if against.has_model:
        inliers = score(other.vae, others, samples, f"scoring {other_name} with the other model")
        outliers = score(other.vae, images, samples, f"scoring {name} with the other model")
        note = f"the same for {other_name} over {name}, with the model of the other run"
        metrics["auroc_reversed"] = Metric(auroc(inliers, outliers), "", None, note)
    measurement.remarks.append(
        "a model can give simpler images of another data set higher scores than its own: then AUROC is below 0.5 "
        "(Nalisnick et al. 2019, arXiv 1810.09136)"
    )
    return measurement


def _write(numbers: Tensor, scores: Tensor, images: Images, classes: tuple[str, ...], path: Path) -> None:
    rows = [
        {"image": number, "class": classes[label] if label < len(classes) else label, "score": value}
        for number, label, value in zip(numbers.tolist(), images.labels.tolist(), scores.tolist(), strict=True)
    ]
    write_csv(["image", "class", "score"], rows, path)


def _extremes(scores: Tensor, images: Tensor, count: int) -> RGBImage:
    """A row of the images with the highest scores, and a row of those with the lowest."""
    count = min(count, len(scores))
    order = scores.argsort(descending=True)
    chosen = torch.cat([order[:count], order.flip(0)[:count]])
    return labelled_grid(
        to_floats(images[chosen]),
        count,
        f"the highest and the lowest scores among {len(scores):,} test images, the most extreme at the left",
        left=["highest", "lowest"],
    )
