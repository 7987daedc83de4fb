"""Distances between features against closed forms, and the classifier that makes the features."""

from pathlib import Path

import pytest
import torch

from tests.conftest import tiny_vae
from tests.evaluation.grey import Grey, grey_module
from vaelab.evaluation import classifier, reconstructions
from vaelab.evaluation.classifier import Classifier, trained
from vaelab.evaluation.reconstructions import structural_similarity
from vaelab.evaluation.sample_quality import (
    _kernel_distance,
    frechet_distance,
    kernel_distance,
    measure,
    nearest,
    precision_and_recall,
)
from vaelab.models.likelihoods import Bernoulli
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import NotApplicable

CPU = torch.device("cpu")


def test_the_frechet_distance_of_gaussians_that_commute() -> None:
    a = torch.randn(200_000, 3, dtype=torch.float64)
    b = torch.randn(200_000, 3, dtype=torch.float64) * torch.tensor([2.0, 0.5, 1.0]) + torch.tensor([1.0, 0.0, 0.0])
    assert frechet_distance(a, b) == pytest.approx(1 + 1 + 0.25, abs=0.05)


def test_the_frechet_distance_is_that_of_the_matrix_square_root() -> None:
    a = torch.randn(500, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64)
    b = torch.randn(500, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64)
    values, vectors = torch.linalg.eig(a.T.cov() @ b.T.cov())
    root = (vectors @ values.sqrt().diag() @ torch.linalg.inv(vectors)).real
    expected = (a.mean(0) - b.mean(0)).square().sum() + (a.T.cov() + b.T.cov() - 2 * root).trace()
    assert frechet_distance(a, b) == pytest.approx(float(expected))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_has_no_bias() -> None:
    same = [float(kernel_distance(torch.randn(20, 2), torch.randn(20, 2))) for _ in range(500)]
    spread = torch.tensor(same).std() / 500**0.5
    assert abs(sum(same) / 500) < 4 * spread
    assert float(kernel_distance(torch.randn(500, 2), torch.randn(500, 2) + 1)) > 0.5


def test_the_kernel_distance_by_hand() -> None:
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [0.0]])
    # k(0, 1) + k(2, 0) - 2 mean(k(0, 2), k(0, 0), k(1, 2), k(1, 0)), k(x, y) = (xy + 1)^3
    assert float(kernel_distance(a, b)) == pytest.approx(1 + 1 - 2 * (1 + 1 + 27 + 1) / 4)


def test_precision_and_recall() -> None:
    real = torch.rand(300, 2)
    assert precision_and_recall(real, real) == (1, 1)
    assert precision_and_recall(real, real + 10) == (0, 0)
    half = real[real[:, 0] < 0.4]  # a part of what is real
    precision, recall = precision_and_recall(real, half)
    assert precision == 1
    assert recall < 0.7


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "_STEPS", 30)


@pytest.mark.usefixtures("_quick")
def test_a_classifier_learns_is_kept_and_replaced_when_damaged(tmp_path: Path) -> None:
    train, test = (Grey((1, 5, 7)).load(train=part) for part in (True, False))
    state = torch.get_rng_state()
    first = trained(train, 3, tmp_path, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    features = first.features(test.images)
    assert features.shape == (45, 128)
    assert (first.probabilities(features).argmax(1) == test.labels).double().mean() > 0.9
    (kept,) = tmp_path.iterdir()
    torch.testing.assert_close(trained(train, 3, tmp_path, CPU).features(test.images), features)
    kept.write_bytes(b"nothing of the kind")
    torch.testing.assert_close(trained(train, 3, tmp_path, CPU).features(test.images), features)
    trained(test, 3, tmp_path, CPU)  # other images are another classifier's
    assert len(list(tmp_path.iterdir())) == 2


def test_features_of_bytes_are_those_of_floats() -> None:
    model = Classifier(1, 3).eval()
    images = torch.randint(0, 256, (4, 1, 6, 6), dtype=torch.uint8)
    torch.testing.assert_close(model.features(images), model.features(images / 255))


@pytest.mark.usefixtures("_quick")
def test_samples_are_measured(tmp_path: Path) -> None:
    subject = TrainedModel(tiny_vae(Bernoulli(), (1, 8, 8)).eval(), grey_module((1, 8, 8), binarize="threshold"))
    measured = measure(subject, 40, 5, tmp_path)
    figures = measured.metrics
    assert figures["frechet_distance"].value > figures["frechet_distance_of_training_images"].value
    assert 0 <= figures["class_distance"].value <= 1
    assert sum(measured.arrays["class_shares"]) == pytest.approx(1)
    assert set(measured.plots) == {"nearest_neighbours"}
    torch.manual_seed(0)
    again = measure(subject, 40, 5, tmp_path).metrics
    torch.manual_seed(0)
    assert measure(subject, 40, 5, tmp_path).metrics == again


def test_the_nearest_is_found_among_bytes() -> None:
    images = torch.randint(0, 256, (6000, 1, 6, 6), dtype=torch.uint8)
    queries = images[[5999, 3, 17]].float() + torch.randn(3, 1, 6, 6)
    assert nearest(queries, images).tolist() == [5999, 3, 17]


def test_structural_similarity_is_that_of_whole_windows() -> None:
    """By the formula, window by window, with the constants of the paper."""
    a, b = torch.rand(2, 1, 13, 12, dtype=torch.float64), torch.rand(2, 1, 13, 12, dtype=torch.float64)
    a[:, :, :, :3] = b[:, :, :, :3] = 0  # a border on which they agree
    weights = torch.exp(-0.5 * ((torch.arange(11.0, dtype=torch.float64) - 5) / 1.5) ** 2)
    window = weights.outer(weights) / weights.sum() ** 2
    values = []
    for top in range(3):
        for left in range(2):
            x, y = (image[:, 0, top : top + 11, left : left + 11] for image in (a, b))
            mx, my = ((window * part).sum((1, 2)) for part in (x, y))
            xx, yy, xy = ((window * part).sum((1, 2)) for part in (x * x, y * y, x * y))
            means = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
            values.append(means * (2 * (xy - mx * my) + 0.03**2) / (xx - mx**2 + yy - my**2 + 0.03**2))
    torch.testing.assert_close(structural_similarity(a, b), torch.stack(values).mean(0))


def test_the_order_of_samples_and_images_does_not_matter() -> None:
    """Both in the order of their classes, as those of a conditional model can be."""
    classes = torch.arange(4.0).repeat_interleave(1000)[:, None]
    figure = _kernel_distance(classes + 0.1 * torch.randn(4000, 2), classes + 0.1 * torch.randn(4000, 2), "")
    assert abs(figure.value) < 1  # 150 where parts of one class are compared with parts of all


def test_without_classes_there_is_no_classifier() -> None:
    module = grey_module((1, 8, 8))
    module.source.classes = ("one",)
    with pytest.raises(NotApplicable, match="no classes"):
        measure(TrainedModel(tiny_vae(Bernoulli(), (1, 8, 8)), module), 40, 5, None)


def test_reconstructions_are_measured() -> None:
    vae = tiny_vae(Bernoulli(), (1, 12, 12)).eval()
    subject = TrainedModel(vae, grey_module((1, 12, 12)))
    figures = reconstructions.measure(subject, None).metrics
    x = subject.images("test").images / 255
    with torch.no_grad():
        errors = (vae.reconstruct(x) - x).square().flatten(1).mean(1)
    assert figures["mse"].value == pytest.approx(float(errors.mean()), rel=1e-5)
    assert figures["psnr"].value == pytest.approx(float((-10 * errors.log10()).mean()), rel=1e-5)
    with torch.no_grad():
        assert figures["ssim"].value == pytest.approx(float(structural_similarity(vae.reconstruct(x), x).mean()))
    small = TrainedModel(tiny_vae(Bernoulli()).eval(), grey_module((1, 4, 4)))
    assert set(reconstructions.measure(small, None).metrics) == {"mse", "psnr"}
