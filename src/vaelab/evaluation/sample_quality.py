"""Quality of samples, by features of a classifier of the same data set."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from vaelab.data.batches import to_floats
from vaelab.evaluation.classifier import trained
from vaelab.evaluation.measurement import Measurement, mean_over_images
from vaelab.runs.metrics import Metric
from vaelab.runs.trained_model import TrainedModel, evenly_spaced
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.plots import RGBImage, labelled_grid

_SUBSET = 1000
_MANIFOLD_NEIGHBOURS = 3
_MANIFOLD_IMAGES = 5000
_FEWEST = 10  # test images


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""Squared Fréchet distance of Gaussians fitted to features (N, F) and (M, F), by torchmetrics in float64.

    .. math:: |\mu_a - \mu_b|^2 + \operatorname{tr}\left(C_a + C_b - 2 (C_a C_b)^{1/2}\right)

    Heusel et al. (2017), arXiv 1706.08500. It falls with the number of images: compare it at equal numbers
    only.
    """
    distance = FrechetInceptionDistance(_Features(a.shape[1]))
    distance.update(a.double(), real=True)
    distance.update(b.double(), real=False)
    return float(distance.compute())


class _Features(nn.Identity):
    """Stands in for the network of torchmetrics, as the features are computed already.

    Args:
        num_features: F.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def kernel_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Unbiased squared maximum mean discrepancy of features (N, F) and (N, F), with a cubic kernel.

    .. math:: k(x, y) = (x^\top y / F + 1)^3

    Bińkowski et al. (2018), arXiv 1801.01401; by torchmetrics, in the dtype of the features.
    """
    return poly_mmd(a, b)


def precision_and_recall(real: Tensor, generated: Tensor, k: int = _MANIFOLD_NEIGHBOURS) -> tuple[float, float]:
    """Precision and recall of samples, from features (N, F) of real and (M, F) of generated images.

    Precision is the share of samples inside the manifold of real images. Recall is the share of real images inside the
    manifold of samples. A manifold is the union of balls around points. A ball's radius is the distance to the k-th
    neighbour of its point (Kynkäänniemi et al. 2019, arXiv 1904.06991).
    """

    def within(points: Tensor, manifold: Tensor) -> float:
        radii = torch.cat([torch.cdist(part, manifold).kthvalue(k + 1).values for part in manifold.split(500)])
        inside = [(torch.cdist(part, manifold) <= radii).any(1) for part in points.split(500)]
        return float(torch.cat(inside).double().mean())

    return within(generated, real), within(real, generated)


@torch.no_grad()
def measure(model: TrainedModel, count: int, shown: int, cache_dir: Path | None) -> Measurement:
    """Distances between samples and test images, precision and recall of samples, and their classes.

    Samples are means of p(x|z) for z from the prior. They are compared with images that are not binarised, whatever
    images the model was trained on. All metrics use features of a classifier of the same data set.

    Args:
        model: to evaluate.
        count: number of samples, and of test images to compare with; at most the number of test images.
        shown: number of samples that are shown beside their nearest training images.
        cache_dir: of the classifier's weights.

    Raises:
        NotApplicable: there are too few test images, or no classes to train a classifier on.
    """
    source = model.datamodule.source
    train, test = source.load(train=True), source.load(train=False)
    if len(test.images) < _FEWEST:
        raise NotApplicable(f"{source.name} has {len(test.images)} test images, too few to compare samples with")
    if len(source.classes) < 2:
        raise NotApplicable(f"{source.name} has no classes, and samples are compared by features of a classifier")
    classifier = trained(train, len(source.classes), cache_dir, model.device)
    every = classifier.features(test.images)
    accuracy = float((classifier.probabilities(every).argmax(1) == test.labels).double().mean())
    count = min(count, len(every))
    chosen = evenly_spaced(len(every), count)
    real = every[chosen]
    samples = _samples(model, test.labels[chosen])
    generated = classifier.features(samples)
    known = classifier.features(train.images[evenly_spaced(len(train.images), count)])
    of = (
        f"{count:,} samples (means of p(x|z)) and test images (not binarised), by features of our own classifier, "
        f"whose accuracy is {100 * accuracy:.2f} %"
    )
    probabilities = classifier.probabilities(generated)
    shares = torch.bincount(probabilities.argmax(1), minlength=len(source.classes)).double() / count
    expected = torch.bincount(test.labels, minlength=len(source.classes)).double() / len(test.labels)
    class_distance = float((shares - expected).abs().sum() / 2)
    metrics = {
        "frechet_distance": Metric(frechet_distance(generated, real), "", None, of),
        "frechet_distance_of_training_images": Metric(
            frechet_distance(known, real), "", None, f"of {len(known):,} training images instead of samples"
        ),
        "kernel_distance": _kernel_distance(generated, real, of),
        **_precision_and_recall(generated, real, of),
        "class_distance": Metric(class_distance, "", None, f"total variation distance of class frequencies; {of}"),
        "certainty": mean_over_images(
            probabilities.max(1).values,
            "",
            f"probability that the classifier gives to a sample's likeliest class; {of}",
        ),
    }
    plot = _beside_nearest(samples[:shown], generated[:shown], train.images, classifier.features(train.images))
    return Measurement(metrics, {"nearest_neighbours": plot}, arrays={"class_shares": shares.tolist()})


def _samples(model: TrainedModel, labels: Tensor) -> Tensor:
    """As many samples as labels, (N, C, H, W), on the CPU; of a conditional model, of these classes."""
    if model.vae.classes is not None:
        return torch.cat([model.vae.sample(len(part), part).cpu() for part in labels.to(model.device).split(500)])
    return torch.cat([model.vae.sample(len(part)).cpu() for part in labels.split(500)])


def _precision_and_recall(generated: Tensor, real: Tensor, of: str) -> dict[str, Metric]:
    few = evenly_spaced(len(real), _MANIFOLD_IMAGES)
    precision, recall = precision_and_recall(real[few], generated[few])
    note = f"{_MANIFOLD_NEIGHBOURS} neighbours, {len(few):,} of each; {of}"
    return {"precision": Metric(precision, "", None, note), "recall": Metric(recall, "", None, note)}


def _kernel_distance(generated: Tensor, real: Tensor, of: str) -> Metric:
    """The mean over disjoint random parts, with its standard error if there are several.

    The class of torchmetrics uses overlapping parts, whose standard deviation gives no standard error.
    """
    # Test images may be sorted, and then samples of a conditional model are sorted by class.
    generated, real = (features[torch.randperm(len(features))] for features in (generated, real))
    subsets = max(1, len(real) // _SUBSET)
    parts = zip(generated.tensor_split(subsets), real.tensor_split(subsets), strict=True)
    distances = torch.stack([kernel_distance(*part) for part in parts])
    error = float(distances.std()) / subsets**0.5 if subsets > 1 else None
    return Metric(float(distances.mean()), "", error, f"mean of {subsets} parts; {of}")


def nearest(queries: Tensor, among: Tensor) -> Tensor:
    """The index (N,) of the row (M, ...) nearest to each query (N, ...), in Euclidean distance."""
    parts = among.flatten(1).split(5000)
    distances = [torch.cdist(queries.flatten(1), part.to(queries.dtype)) for part in parts]
    return torch.cat(distances, 1).argmin(1)


def _beside_nearest(samples: Tensor, generated: Tensor, images: Tensor, features: Tensor) -> RGBImage:
    """Samples above the training images that are nearest to them, in pixels and in features."""
    rows = [samples, to_floats(images[nearest(255 * samples, images)]), to_floats(images[nearest(generated, features)])]
    title = f"samples and the nearest of {len(images):,} training and validation images"
    left = ["sample", "nearest\nin pixels", "nearest\nin features"]
    return labelled_grid(torch.cat(rows), len(samples), title, left=left)
