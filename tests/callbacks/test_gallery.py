"""Pictures of a tested model, in a run and of models and data that lack something."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torch import Tensor

from tests.conftest import composed, tiny_vae
from vaelab import figures
from vaelab.callbacks import drawing, gallery
from vaelab.callbacks.drawing import CannotDraw, at_rest, excused
from vaelab.callbacks.gallery import Gallery, Subject
from vaelab.data.source import Images
from vaelab.distributions import Latent
from vaelab.likelihoods import SquaredError
from vaelab.module import VAEModule
from vaelab.objectives import ELBO
from vaelab.training import train

BY_DEFAULT = {"class_reconstructions", "latents", "errors", "manifold", "losses", "path", "reconstructions", "samples"}


def _weights(run_dir: Path) -> dict[str, Tensor]:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def subject(
    count: int = 40,
    classes: tuple[str, ...] = ("a", "b", "c"),
    shape: tuple[int, int, int] = (1, 4, 4),
    latent_dim: int = 2,
    factors: Tensor | None = None,
    factor_names: tuple[str, ...] = (),
) -> Subject:
    """A model that was not trained, and random images of some data set."""
    images = Images(
        torch.randint(0, 256, (count, *shape), dtype=torch.uint8), torch.arange(count) % len(classes), factors
    )
    source = SimpleNamespace(classes=classes, factor_names=factor_names)
    datamodule = SimpleNamespace(splits={"test": images}, source=source, is_binary=False)
    trainer: Any = SimpleNamespace(datamodule=datamodule, loggers=[], num_training_batches=3)
    return Subject(trainer, VAEModule(tiny_vae(SquaredError(), shape, latent_dim), ELBO()), 10_000)


def _noted(model: Subject, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The latents that are decoded from here on."""
    latents: list[Tensor] = []
    decode = model.decode

    def noting(z: Tensor, y: Tensor | None = None) -> Tensor:
        latents.append(z)
        return decode(z, y)

    monkeypatch.setattr(model, "decode", noting)
    return latents


def test_a_run_draws_the_default_pictures_after_the_test(tmp_path: Path, tiny_data: list[str]) -> None:
    train(composed("train", f"run_dir={tmp_path}", *tiny_data))
    files = {path.stem: path for path in (tmp_path / "pictures").iterdir()}
    assert set(files) == BY_DEFAULT
    for name, path in files.items():
        assert np.asarray(Image.open(path)).std() > 10, name


def test_the_gallery_draws_everything_and_changes_nothing(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, "latent_dim=3", "data.binarize=dynamic"]
    animated = ["callbacks=gallery", "callbacks.manifold_animation.every_n_batches=1"]
    plain = train(composed("train", f"run_dir={tmp_path / 'plain'}", *options, "callbacks=none"))
    drawn = train(composed("train", f"run_dir={tmp_path / 'drawn'}", *options, *animated))
    first, second = _weights(tmp_path / "plain"), _weights(tmp_path / "drawn")
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("test/elbo", "val/elbo", "test/kl"):
        assert drawn[name] == plain[name]
    files = {path.name for path in (tmp_path / "drawn" / "pictures").iterdir()}
    assert files == {f"{name}.png" for name in BY_DEFAULT | {"arithmetic"}} | {"samples.gif", "frames"}
    assert not (tmp_path / "plain" / "pictures").exists()


def test_a_picture_can_be_left_out(tmp_path: Path) -> None:
    cfg = composed("train", f"run_dir={tmp_path}", "callbacks.gallery.pictures.latents=null")
    configured = instantiate(cfg.callbacks.gallery, _convert_="all")
    assert configured.pictures["latents"] is None
    model = subject()
    trainer: Any = model.trainer
    trainer.is_global_zero = True
    drawn: list[str] = []
    configured.pictures = {
        name: (lambda model, name=name: drawn.append(name)) if draw else None
        for name, draw in configured.pictures.items()
    }
    configured.on_test_end(trainer, VAEModule(model.vae, ELBO()))
    assert set(drawn) == BY_DEFAULT - {"latents", "reconstructions", "samples"}


def test_a_folder_that_cannot_be_written_does_not_end_the_training(
    tmp_path: Path, tiny_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    folders = [f"callbacks.{name}.folder={tmp_path / 'file' / 'x'}" for name in ("pictures", "gallery")]
    animated = [f"callbacks.samples_animation.folder={tmp_path / 'file' / 'x'}", "callbacks.manifold_animation=null"]
    run = [f"run_dir={tmp_path / 'run'}", *tiny_data, "callbacks=gallery", *folders, *animated]
    figures_of_run = train(composed("train", *run))
    assert figures_of_run["epochs"] == 2
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for name in ("samples", "samples.gif", "latents", "losses"):
        assert len([line for line in warned if line.startswith(f"{name}: could not be drawn: ")]) == 1, name


@pytest.mark.parametrize(("shape", "latent_dim"), [((1, 4, 4), 2), ((3, 7, 5), 1), ((3, 5, 7), 5)])
def test_every_picture_of_any_data_and_model(shape: tuple[int, int, int], latent_dim: int) -> None:
    model = subject(shape=shape, latent_dim=latent_dim)
    pictures = [
        gallery.class_reconstructions(model),
        gallery.latents(model),
        gallery.errors(model),
        gallery.manifold(model, count=3, any_size=True),
        gallery.path(model, steps=3),
        gallery.arithmetic(model, classes=("a", 2)),
    ]
    for picture in pictures:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3


def test_images_without_classes_are_drawn_as_far_as_they_can_be() -> None:
    model = subject(classes=("",))
    for draw in (gallery.class_reconstructions, gallery.latents, gallery.path):
        assert draw(model).size
    with pytest.raises(CannotDraw, match="neither images of the classes"):
        gallery.arithmetic(model)


def test_what_cannot_be_drawn_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), excused("manifold"):
        gallery.manifold(subject(latent_dim=3))
    with caplog.at_level(logging.INFO), excused("losses"):
        gallery.losses(subject())
    with caplog.at_level(logging.INFO), excused("crash"):
        raise RuntimeError("first line\nsecond line")
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["INFO", "INFO", "WARNING"]
    assert lines[0][1].startswith("manifold: not drawn: latent_dim is 3, not 2")
    assert lines[1][1].startswith("losses: not drawn: there is no metrics.csv")
    assert lines[2][1] == "crash: could not be drawn: RuntimeError: first line"


def test_the_choice_of_images_has_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Tensor] = []

    def note(originals: Tensor, reconstructions: Tensor, labels: Tensor, classes: Any) -> figures.Picture:
        chosen.append(originals)
        assert labels.bincount().tolist() == [2, 2, 2]
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(figures, "class_reconstructions", note)
    model = subject()
    for seed in (0, 0, 1):
        gallery.class_reconstructions(model, per_class=2, seed=seed)
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_codes_and_errors_are_those_of_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "_BATCH", 7)
    model = subject(latent_dim=3)
    x = model.images.float() / 255
    with torch.no_grad():
        q_z = model.vae.encode(x)
        means, log_variances = model.codes
        assert log_variances is not None
        assert torch.allclose(means, q_z.mean, atol=1e-6)
        assert torch.allclose(log_variances, q_z.variance.log(), atol=1e-6)
        drawn: list[Tensor] = []
        monkeypatch.setattr(figures, "error_histogram", drawn.append)
        gallery.errors(model)
        expected = (model.vae.reconstruct(x) - x).square().flatten(1).mean(1)
        assert torch.allclose(drawn[0], expected, atol=1e-6)


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
    assert model.codes[1] is None
    assert gallery.latents(model).size


def test_arithmetic_moves_along_a_difference_of_means(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = torch.stack([torch.randn(40), torch.arange(40.0)], 1)
    model = subject(factors=factors, factor_names=("angle", "thickness"))
    decoded = _noted(model, monkeypatch)
    with torch.no_grad():
        means = model.codes[0]
        gallery.arithmetic(model, steps=(0, 2), count=3)
        gallery.arithmetic(model, factor=1, steps=(0, 2), count=3)
        gallery.arithmetic(model, factor=None, classes=("c", "a"), steps=(0, 1), count=2)
    thickness = means[20:].mean(0) - means[:19].mean(0)  # the median itself is on neither side
    expected = torch.stack([means[:3], means[:3] + 2 * thickness], 1).flatten(0, 1)
    assert torch.allclose(decoded[0], expected, atol=1e-6)
    assert torch.equal(decoded[0], decoded[1])
    difference = means[model.labels == 0].mean(0) - means[model.labels == 2].mean(0)
    first = means[model.labels == 2][:2]
    assert torch.allclose(decoded[2], torch.stack([first, first + difference], 1).flatten(0, 1), atol=1e-6)


def test_a_path_leads_from_class_to_class(monkeypatch: pytest.MonkeyPatch) -> None:
    model = subject()
    decoded = _noted(model, monkeypatch)
    with torch.no_grad():
        means = model.codes[0]
        gallery.path(model, start="b", end=0, steps=4)
        gallery.path(model, start=8, end=6, steps=4)  # there are no such classes: the first and the last
    for z, (start, end) in zip(decoded, ((1, 0), (0, 2)), strict=True):
        assert torch.allclose(z[[0, -1]], means[[start, end]], atol=1e-6)


def test_the_plane_of_a_large_latent_space_is_where_the_means_vary_most(monkeypatch: pytest.MonkeyPatch) -> None:
    model = subject(latent_dim=4)
    model.__dict__["codes"] = (torch.randn(40, 4) * torch.tensor([1.0, 5.0, 0.1, 9.0]), None)
    planes: list[Any] = []
    monkeypatch.setattr(figures, "manifold", lambda images, latent_dim, dims: planes.append(dims))
    with torch.no_grad():
        gallery.manifold(model, count=2, any_size=True)
    assert planes == [[3, 1]]


def test_drawing_leaves_mode_gradients_and_random_numbers_alone() -> None:
    module = VAEModule(tiny_vae(SquaredError()), ELBO())
    module.train()
    module.vae.encoder.eval()  # frozen on purpose
    state = torch.get_rng_state()

    def fail() -> None:
        with at_rest(module):
            assert not any(part.training for part in module.modules())
            assert not torch.is_grad_enabled()
            torch.rand(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert module.training
    assert module.objective.training
    assert not any(part.training for part in module.vae.encoder.modules())


def test_only_the_first_process_draws(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=False)
    module: Any = L.LightningModule()
    Gallery(str(tmp_path), {"never": lambda subject: pytest.fail("drawn")}).on_test_end(trainer, module)
    assert not list(tmp_path.iterdir())


def test_pictures_go_to_tensorboard(tmp_path: Path, tiny_data: list[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    options = [*tiny_data, "logger=tensorboard", "callbacks=gallery"]
    train(composed("train", f"run_dir={tmp_path}", *options))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    names = set(events.Tags()["images"])
    assert {"test/latents", "test/errors", "train/samples", "train/manifold", "test/reconstructions"} <= names
    assert events.Images("train/samples")[0].encoded_image_string.startswith(b"GIF89a")
    assert "test/losses" not in names  # there is no metrics.csv


def test_images_come_in_the_precision_of_the_model() -> None:
    images = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    values = drawing.pixels(images, torch.zeros(1, dtype=torch.bfloat16))
    assert values.dtype == torch.bfloat16
    assert values.tolist()[0] == pytest.approx([0, 0.2, 1], abs=1e-2)
