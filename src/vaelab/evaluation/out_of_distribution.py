"""A score for every image, by which those that do not belong can be told: an estimate of its log-likelihood.

Where the loss is no likelihood of the images, neither is the score, and it orders images all the same.

The caveat belongs to it: a generative model can give images of another, simpler data set *higher* likelihoods than
those it was trained on (Nalisnick et al. 2019, arXiv 1810.09136).
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
    """Another data set, to be told from the model's own, and the model that was trained on it, if there is one."""

    model: TrainedModel
    has_model: bool


def score(vae: VAE, images: Images, samples: int, description: str) -> Tensor:
    """The bound on log p(x) with so many samples, (N,), of each of the images (N, C, H, W), on the CPU."""
    return bounds(vae, images.images, images.labels, [samples], description).values[:, 0]


def auroc(inliers: Tensor, outliers: Tensor) -> float:
    """The probability that an inlier scores higher than an outlier, a tie counting half: the area under the ROC curve.

    Args:
        inliers, outliers: scores, shapes (N,) and (M,), higher for what belongs.
    """
    # torchmetrics' AUROC takes scores outside of [0, 1] for logits: where they are far from 0, their order is lost.
    from sklearn.metrics import roc_auc_score

    ranks = torch.cat([inliers, outliers]).unique(return_inverse=True)[1]  # of infinite scores, too
    return float(roc_auc_score([1] * len(inliers) + [0] * len(outliers), ranks.numpy()))


def check_comparable(model: TrainedModel, other: TrainedModel) -> None:
    """Refuses another data set whose images could be told from the model's own by more than what they show.

    Raises:
        UserError: it is binarised otherwise, or has another shape, or a model is told the class.
    """
    name, other_name = model.datamodule.source.name, other.datamodule.source.name
    if model.vae.classes is not None or other.vae.classes is not None:
        raise UserError(
            "against: a conditional model is told the class of every image, and another data set has others"
        )
    if other.datamodule.binarization != model.datamodule.binarization:
        raise UserError(
            f"against: images of {other_name} are binarize={other.datamodule.binarization} and those of {name} "
            f"binarize={model.datamodule.binarization}, by which alone they could be told: choose runs of the same"
        )
    if tuple(other.datamodule.image_shape) != model.vae.image_shape:
        raise UserError(
            f"against: images of {other_name} have shape {list(other.datamodule.image_shape)}, and the model is of "
            f"{list(model.vae.image_shape)}: choose a data set of that shape"
        )


def measure(
    model: TrainedModel, samples: int, limit: int | None, extremes: int, folder: Path, against: Against | None
) -> Measurement:
    """Scores of test images and, where there is one, of another data set's; their files, and figures of them.

    Args:
        model: what is evaluated.
        samples: importance samples for each image.
        limit: how many test images of each data set, evenly spaced; ``None`` for all of them.
        extremes: how many of the most and the least likely ones are shown.
        folder: where ``scores.csv`` goes.
        against: another data set, of which ``check_comparable`` has nothing to say.
    """
    source = model.datamodule.source
    images = model.images("test", limit)
    scores = score(model.vae, images, samples, "scoring test images")
    numbers = evenly_spaced(len(model.splits["test"].images), limit)
    _write(numbers, scores, images, source.classes, folder / "scores.csv")

    def mean(values: Tensor, of: str) -> Metric:
        return mean_over_images(values, model.unit, f"k={samples}; {of}{model.given}")

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
    metrics["auroc"] = Metric(
        auroc(scores, other_scores), "", None, f"how likely an image of {name} scores higher than one of {other_name}"
    )
    if against.has_model:
        inliers = score(other.vae, others, samples, f"scoring {other_name} the other way round")
        outliers = score(other.vae, images, samples, f"scoring {name} the other way round")
        metrics["auroc_reversed"] = Metric(
            auroc(inliers, outliers), "", None, f"the same of {other_name} and {name}, under the other run's model"
        )
    measurement.remarks.append(
        "a model can find simpler images of another set likelier than its own, which is an AUROC below 0.5 "
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
    """The images with the highest and the lowest scores, a row each, with the scores."""
    count = min(count, len(scores))
    order = scores.argsort(descending=True)
    chosen = torch.cat([order[:count], order.flip(0)[:count]])
    return labelled_grid(
        to_floats(images[chosen]),
        count,
        f"the highest and the lowest scores of {len(scores):,} test images, from the left",
        left=["highest", "lowest"],
    )
