"""The pictures of a tested model, drawn by a run that they leave alone."""

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
from tests.visualization.gallery.subjects import subject
from vaelab.commands.train import train
from vaelab.models.likelihoods import SquaredError
from vaelab.objectives import ELBO
from vaelab.runtime.console import best_effort
from vaelab.runtime.random import eval_mode
from vaelab.training.callbacks.gallery import Gallery
from vaelab.training.lightning_module import VAEModule
from vaelab.visualization import gallery

BY_DEFAULT = {"class_reconstructions", "latents", "errors", "manifold", "losses", "path", "reconstructions", "samples"}


def _weights(run_dir: Path) -> dict[str, Tensor]:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


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
    assert files == {f"{name}.png" for name in BY_DEFAULT | {"arithmetic"}} | {"samples.gif", "manifold.gif", "frames"}
    assert not (tmp_path / "plain" / "pictures").exists()


def test_a_picture_can_be_left_out(tmp_path: Path) -> None:
    cfg = composed("train", f"run_dir={tmp_path}", "callbacks.gallery.pictures.latents=null")
    configured = instantiate(cfg.callbacks.gallery, _convert_="all")
    assert configured.pictures["latents"] is None
    model = subject()
    trainer: Any = SimpleNamespace(datamodule=model.datamodule, loggers=[], is_global_zero=True)
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
        assert len([line for line in warned if line.startswith(f"{name}: failed: ")]) == 1, name


def test_what_cannot_be_drawn_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), best_effort("manifold"):
        gallery.manifold(subject(latent_dim=3))
    with caplog.at_level(logging.INFO), best_effort("losses"):
        gallery.losses(subject())
    with caplog.at_level(logging.INFO), best_effort("crash"):
        raise RuntimeError("first line\nsecond line")
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["INFO", "INFO", "WARNING"]
    assert lines[0][1].startswith("manifold: left out: latent_dim is 3, not 2")
    assert lines[1][1].startswith("losses: left out: there is no metrics.csv")
    assert lines[2][1] == "crash: failed: RuntimeError: first line"


def test_drawing_leaves_mode_gradients_and_random_numbers_alone() -> None:
    module = VAEModule(tiny_vae(SquaredError()), ELBO())
    module.train()
    module.vae.encoder.eval()  # frozen on purpose
    state = torch.get_rng_state()

    def fail() -> None:
        with eval_mode(module):
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


def test_pictures_go_to_wandb(tmp_path: Path, tiny_data: list[str]) -> None:
    """A plain autoencoder's, with another model beside it."""
    options = [*tiny_data, "logger=many", "callbacks=gallery", "objective=autoencoder"]
    train(composed("train", f"run_dir={tmp_path / 'vae'}", *tiny_data, "callbacks=none"))
    beside = f"callbacks.gallery.pictures.comparison.beside={tmp_path / 'vae'}"
    train(composed("train", f"run_dir={tmp_path / 'ae'}", *options, beside))
    media = next((tmp_path / "ae" / "wandb").glob("offline-run-*")) / "files" / "media"
    sent = {path.relative_to(media).as_posix().rpartition("_")[0].rpartition("_")[0] for path in media.rglob("*.*")}
    tested = {f"images/test/{name}" for name in BY_DEFAULT | {"arithmetic", "comparison"}}
    assert sent >= tested | {"videos/train/samples", "videos/train/manifold"}
    assert {path.stem for path in (tmp_path / "ae" / "pictures").glob("*.png")} == BY_DEFAULT | {
        "arithmetic",
        "comparison",
    }
