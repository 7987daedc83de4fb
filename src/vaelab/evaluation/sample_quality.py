"""What samples are worth, judged by the features of a classifier of the same data set; and reconstructions."""

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
    r"""The squared Fréchet distance of two Gaussians fitted to features (N, F) and (M, F), by torchmetrics in 64 bits.

    .. math:: |\mu_a - \mu_b|^2 + \operatorname{tr}\left(C_a + C_b - 2 (C_a C_b)^{1/2}\right)

    Heusel et al. (2017), arXiv 1706.08500. It falls with the number of images: compare it at equal numbers only.
    """
    distance = FrechetInceptionDistance(_Given(a.shape[1]))
    distance.update(a.double(), real=True)
    distance.update(b.double(), real=False)
    return float(distance.compute())


class _Given(nn.Identity):
    """What torchmetrics takes for its network, where the features are there already.

    Args:
        num_features: F.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def kernel_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""The unbiased squared maximum mean discrepancy of features (N, F) and (N, F), with a kernel of third degree.

    .. math:: k(x, y) = (x^\top y / F + 1)^3

    Bińkowski et al. (2018), arXiv 1801.01401; by torchmetrics, in the precision of the features.
    """
    return poly_mmd(a, b)


def precision_and_recall(real: Tensor, drawn: Tensor, k: int = _MANIFOLD_NEIGHBOURS) -> tuple[float, float]:
    """How many samples lie within the manifold of real images, and the other way round, by features (N, F), (M, F).

    A manifold is the union of balls around its points that reach to their k-th neighbour (Kynkäänniemi et al. 2019,
    arXiv 1904.06991).
    """

    def within(points: Tensor, manifold: Tensor) -> float:
        radii = torch.cat([torch.cdist(part, manifold).kthvalue(k + 1).values for part in manifold.split(500)])
        inside = [(torch.cdist(part, manifold) <= radii).any(1) for part in points.split(500)]
        return float(torch.cat(inside).double().mean())

    return within(drawn, real), within(real, drawn)


@torch.no_grad()
def measure(model: TrainedModel, count: int, shown: int, cache_dir: Path | None) -> Measurement:
    """How far samples are from test images, how many of them look real, what they leave out, what they repeat.

    Samples are pictures, the means of p(x|z) for z from the prior, and are compared with grey images, however the model
    was trained.

    Args:
        model: what is evaluated.
        count: how many samples, and of test images as many; fewer where there are fewer of those.
        shown: how many samples are drawn beside their nearest training images.
        cache_dir: where the classifier is kept.

    Raises:
        NotMeasured: there are no classes to train a classifier on.
    """
    source, vae = model.datamodule.source, model.vae
    train, test = source.load(train=True), source.load(train=False)
    classes = source.classes
    if len(test.images) < _FEWEST:
        raise NotApplicable(f"{source.name} has {len(test.images)} test images, too few to compare samples with")
    if len(classes) < 2:
        raise NotApplicable(
            f"{source.name} has no classes, and the network that judges samples is a classifier of them"
        )
    classifier = trained(train, len(classes), cache_dir, model.device)
    every = classifier.features(test.images)
    accuracy = float((classifier.probabilities(every).argmax(1) == test.labels).double().mean())
    count = min(count, len(every))
    chosen = evenly_spaced(len(every), count)
    real = every[chosen]
    labels = None if vae.classes is None else test.labels[chosen].to(model.device)  # classes as often as they are
    parts = [None] * len(range(0, count, 500)) if labels is None else labels.split(500)
    pictures = torch.cat([vae.sample(min(500, count - 500 * i), part).cpu() for i, part in enumerate(parts)])
    drawn = classifier.features(pictures)
    known = classifier.features(train.images[evenly_spaced(len(train.images), count)])
    of = (
        f"{count:,} samples, the means of p(x|z), and grey test images; features of our own classifier, "
        f"{100 * accuracy:.2f} % right"
    )
    few = evenly_spaced(count, _MANIFOLD_IMAGES)
    precision, recall = precision_and_recall(real[few], drawn[few])
    manifold = f"{_MANIFOLD_NEIGHBOURS} neighbours, {min(count, _MANIFOLD_IMAGES):,} of each; {of}"
    probabilities = classifier.probabilities(drawn)
    shares = torch.bincount(probabilities.argmax(1), minlength=len(classes)).double() / count
    expected = torch.bincount(test.labels, minlength=len(classes)).double() / len(test.labels)
    metrics = {
        "frechet_distance": Metric(frechet_distance(drawn, real), "", None, of),
        "frechet_distance_of_training_images": Metric(
            frechet_distance(known, real), "", None, f"the same of {len(known):,} training images: what is within reach"
        ),
        "kernel_distance": _kernel_distance(drawn, real, of),
        "precision": Metric(precision, "", None, manifold),
        "recall": Metric(recall, "", None, manifold),
        "class_distance": Metric(
            float((shares - expected).abs().sum() / 2), "", None, f"total variation between shares of classes; {of}"
        ),
        "certainty": mean_over_images(probabilities.max(1).values, "", f"the classifier's, of a sample's class; {of}"),
    }
    picture = _beside_nearest(pictures[:shown], drawn[:shown], train.images, classifier.features(train.images))
    return Measurement(metrics, {"nearest_neighbours": picture}, arrays={"class_shares": shares.tolist()})


def _kernel_distance(drawn: Tensor, real: Tensor, of: str) -> Metric:
    """The mean over disjoint parts, in a random order, and its standard error where there are several.

    torchmetrics' own class draws parts that overlap, and gives their standard deviation: no error follows from that.
    """
    # Test images may be in an order, and samples of a conditional model are in theirs.
    drawn, real = (features[torch.randperm(len(features))] for features in (drawn, real))
    subsets = max(1, len(real) // _SUBSET)
    parts = zip(drawn.tensor_split(subsets), real.tensor_split(subsets), strict=True)
    distances = torch.stack([kernel_distance(*part) for part in parts])
    error = float(distances.std()) / subsets**0.5 if subsets > 1 else None
    return Metric(float(distances.mean()), "", error, f"mean of {subsets} parts; {of}")


def nearest(queries: Tensor, among: Tensor) -> Tensor:
    """Which of the rows (M, ...) is nearest to each of the queries (N, ...), in Euclidean distance: (N,)."""
    parts = among.flatten(1).split(5000)
    distances = [torch.cdist(queries.flatten(1), part.to(queries.dtype)) for part in parts]
    return torch.cat(distances, 1).argmin(1)


def _beside_nearest(pictures: Tensor, drawn: Tensor, images: Tensor, features: Tensor) -> RGBImage:
    """Samples over the training images that are nearest to them, in pixels and in features."""
    rows = [pictures, to_floats(images[nearest(255 * pictures, images)]), to_floats(images[nearest(drawn, features)])]
    title = f"samples, and the nearest of {len(images):,} images to train and to validate on"
    left = ["sample", "nearest\nin pixels", "nearest\nin features"]
    return labelled_grid(torch.cat(rows), len(pictures), title, left=left)
