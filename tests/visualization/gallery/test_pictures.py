"""Pictures of models and data of any size, and of such as lack something."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.visualization.gallery.subjects import noted, subject
from vaelab.data.source import Images
from vaelab.models.distributions.latents import Latent
from vaelab.runs import trained_model as subjects
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization import gallery, plots
from vaelab.visualization.report.latent_space import gather


@pytest.mark.parametrize(("shape", "latent_dim"), [((1, 4, 4), 2), ((3, 7, 5), 1), ((3, 5, 7), 5)])
def test_every_picture_of_any_data_and_model(shape: tuple[int, int, int], latent_dim: int) -> None:
    model = subject(shape=shape, latent_dim=latent_dim)
    for drawn in (
        gallery.samples(model, 5),
        gallery.reconstructions(model, 5),
        gallery.class_reconstructions(model),
        gallery.latents(model),
        gallery.errors(model),
        gallery.manifold(model, count=3, any_size=True),
        gallery.interpolation(model, steps=3),
        gallery.arithmetic(model, classes=("a", 2)),
        gallery.traversal(model, steps=3, frames=3),
        gallery.class_samples(model, 2),
    ):
        assert drawn.image.dtype == np.uint8
        assert drawn.image.shape[2] == 3


def test_images_without_classes_are_drawn_as_far_as_they_can_be() -> None:
    model = subject(classes=("",))
    for drawn in (
        gallery.class_reconstructions(model),
        gallery.latents(model),
        gallery.interpolation(model, [8, 6]),
    ):
        assert drawn.image.size
    with pytest.raises(NotApplicable, match="neither images of the classes"):
        gallery.arithmetic(model)


def test_the_choice_of_images_has_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Tensor] = []

    def note(originals: Tensor, reconstructions: Tensor, labels: Tensor, classes: Any) -> plots.RGBImage:
        chosen.append(originals)
        assert labels.bincount().tolist() == [2, 2, 2]
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(plots, "class_reconstructions", note)
    model = subject()
    for seed in (0, 0, 1):
        gallery.class_reconstructions(model, per_class=2, seed=seed)
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_codes_and_errors_are_those_of_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "_AT_ONCE", 7)
    model = subject(latent_dim=3)
    x = model.test.images.float() / 255
    with torch.no_grad():
        q_z = model.vae.encode(x)
        means, log_variances = model.codes_of_test
        assert log_variances is not None
        assert torch.allclose(means, q_z.mean, atol=1e-6)
        assert torch.allclose(log_variances, q_z.variance.log(), atol=1e-6)
        expected = (model.vae.reconstruct(x) - x).square().flatten(1).mean(1)
        assert torch.allclose(gallery.errors(model).arrays["errors"], expected, atol=1e-6)


def test_a_posterior_without_a_variance_is_drawn_by_its_means() -> None:
    model = subject()

    class Point(Latent):
        arg_constraints = {}  # noqa: RUF012

        def __init__(self, mean: Tensor) -> None:
            self._mean = mean
            super().__init__(mean.shape[:1], mean.shape[1:], validate_args=False)

        @property
        def mean(self) -> Tensor:
            return self._mean

    model.vae.encode = lambda x, y=None: Point(x.flatten(1)[:, :2])  # type: ignore[method-assign]
    assert model.codes_of_test[1] is None
    assert gallery.latents(model).image.size


def test_arithmetic_moves_along_a_difference_of_means(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = torch.stack([torch.randn(40), torch.arange(40.0)], 1)
    model = subject(factors=factors, factor_names=("angle", "thickness"))
    decoded = noted(model, monkeypatch)
    with torch.no_grad():
        means = model.codes_of_test[0]
        gallery.arithmetic(model, times=(0, 2), count=3)
        gallery.arithmetic(model, factor=1, times=(0, 2), count=3)
        gallery.arithmetic(model, factor=None, classes=("c", "a"), times=(0, 1), count=2)
    thickness = means[20:].mean(0) - means[:20].mean(0)
    expected = torch.stack([means[:3], means[:3] + 2 * thickness], 1).flatten(0, 1)
    assert torch.allclose(decoded[0], expected, atol=1e-6)
    assert torch.equal(decoded[0], decoded[1])
    difference = means[model.test.labels == 0].mean(0) - means[model.test.labels == 2].mean(0)
    first = means[model.test.labels == 2][:2]
    assert torch.allclose(decoded[2], torch.stack([first, first + difference], 1).flatten(0, 1), atol=1e-6)


def test_a_path_leads_from_class_to_class(monkeypatch: pytest.MonkeyPatch) -> None:
    model = subject()
    decoded = noted(model, monkeypatch)
    with torch.no_grad():
        means = model.codes_of_test[0]
        gallery.interpolation(model, ["b", 0], steps=4)
        gallery.interpolation(model, [8, 6], steps=4)  # there are no such classes: the first and the last
    for z, (start, end) in zip(decoded, ((1, 0), (0, 2)), strict=True):
        assert torch.allclose(z[[0, -1]], means[[start, end]], atol=1e-6)


def test_the_plane_of_a_large_latent_space_is_where_the_means_vary_most(monkeypatch: pytest.MonkeyPatch) -> None:
    model = subject(latent_dim=4)
    model.__dict__["codes_of_test"] = (torch.randn(40, 4) * torch.tensor([1.0, 5.0, 0.1, 9.0]), None)
    planes: list[Any] = []
    monkeypatch.setattr(plots, "manifold_grid", lambda images, latent_dim, dims: planes.append(dims))
    with torch.no_grad():
        gallery.manifold(model, count=2, any_size=True)
    assert planes == [[3, 1]]


def test_images_come_in_the_precision_of_the_model() -> None:
    model = subject()
    model.vae.to(torch.bfloat16)
    values = model.pixels(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
    assert values.dtype == torch.bfloat16
    assert values.tolist()[0] == pytest.approx([0, 0.2, 1], abs=1e-2)


def test_samples_are_told_apart_by_where_classes_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    model = subject(latent_dim=3)
    centres = torch.tensor([[-4.0, 0, 0], [4, 0, 0], [0, 4, 0]])

    def near(images: Images) -> Tensor:
        return centres[images.labels] + torch.randn(len(images.labels), 3) * torch.tensor([0.5, 0.5, 30.0])

    monkeypatch.setattr(model, "sample_posterior", near)
    monkeypatch.setattr(model.vae, "sample_latents", lambda count, temperature: near(model.test)[:count])
    drawn = gallery.class_samples(model, 4)
    nearest = torch.cdist(drawn.arrays["latents"][:, :2], centres[:, :2]).argmin(1)
    assert drawn.arrays["labels"].tolist() == nearest.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    with pytest.raises(NotApplicable, match="random has no classes"):
        gallery.class_samples(subject(classes=("",)))


def test_epochs_are_told_from_the_steps_of_validations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["epoch,step,train/loss,val/loss", ",4,9,", "0,9,,8", ",14,7,", "0,19,,6", "1,29,,5", "1,39,,4", "2,39,,"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    model = subject()
    model.run = RunFolder(tmp_path)
    told: list[Any] = []
    monkeypatch.setattr(plots, "loss_curves", lambda curves, per_epoch, units: told.append((curves, per_epoch)))
    gallery.losses(model)
    assert told == [({"loss": {"train": ((5, 15), (9, 7)), "val": ((10, 20, 30, 40), (8, 6, 5, 4))}}, 20)]


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_picture_of_few_images_is_drawn_or_left_out_with_a_reason(count: int, latent_dim: int) -> None:
    """Without a warning: those of torch are errors here."""
    model = subject(count, latent_dim=latent_dim, factors=torch.rand(count, 1), factor_names=("width",))
    pictures: dict[str, Any] = {
        "samples": lambda: gallery.samples(model, 5),
        "reconstructions": lambda: gallery.reconstructions(model),
        "class_reconstructions": lambda: gallery.class_reconstructions(model),
        "latents": lambda: gallery.latents(model),
        "errors": lambda: gallery.errors(model),
        "manifold": lambda: gallery.manifold(model, 3, any_size=True),
        "interpolation": lambda: gallery.interpolation(model, steps=3),
        "arithmetic": lambda: gallery.arithmetic(model, "width"),
        "traversal": lambda: gallery.traversal(model, steps=3),
        "class_samples": lambda: gallery.class_samples(model, 2),
    }
    left_out = set()
    for name, draw in pictures.items():
        try:
            assert np.isfinite(draw().image).all()
        except NotApplicable:
            left_out.add(name)
    single = {"interpolation", "arithmetic", "traversal"} if count == 1 else set()
    # The discriminant of class_samples needs more images than these.
    assert left_out == single | {"class_samples"}
    assert gather(model, 100)["labels"].shape == (count,)


def test_a_class_without_training_images_gets_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mean would be NaN, which is the largest of all scores: it would get every sample."""
    model = subject(120)
    train, test = model.splits["train"], model.splits["test"]
    model.datamodule.splits = {"train": train.part(train.labels != 1), "test": test}
    titles: list[str] = []

    def note(images: Tensor, columns: int, title: str, **labels: Any) -> plots.RGBImage:
        titles.append(title)
        assert labels["left"] == ["a", "c"]
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(plots, "labelled_grid", note)
    drawn = gallery.class_samples(model, 3)
    assert drawn.arrays["labels"].bincount().tolist() == [3, 0, 3]
    assert "accuracy on the 80 test images of these classes" in titles[0]
    model.datamodule.splits["test"] = test.part(test.labels == 1)
    del model.test
    gallery.class_samples(model, 3)
    assert "no test image is of these classes" in titles[1]


def test_too_few_images_for_a_discriminant_are_refused() -> None:
    with pytest.raises(NotApplicable, match="7 training images are too few to predict 3 classes from 5 latent dim"):
        gallery.class_samples(subject(7, latent_dim=5))
    assert gallery.class_samples(subject(8, latent_dim=5), 2).image.size


def test_names_of_files_and_classes_are_drawn_in_every_picture() -> None:
    model = subject(60, classes=("\u732b", "$x$", os.fsdecode(b"caf\xe9")))
    model.chosen = model.numbered([0, 1])
    for drawn in (
        gallery.latents(model),
        gallery.class_reconstructions(model),
        gallery.class_samples(model, 2),
        gallery.interpolation(model, steps=3),
        gallery.traversal(model, steps=3),
        gallery.arithmetic(model, None, classes=(0, 1)),
    ):
        assert drawn.image.std() > 5
