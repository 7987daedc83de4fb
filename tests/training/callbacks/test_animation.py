"""Frames of a training: how many, of what, and how they survive an interruption."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import composed, tiny_vae
from vaelab.commands.train import train
from vaelab.models.likelihoods import SquaredError
from vaelab.objectives import ELBO
from vaelab.training.callbacks import animation
from vaelab.training.callbacks.animation import Animation
from vaelab.training.lightning_module import VAEModule
from vaelab.visualization.plots import image_grid, manifold_latents

GALLERY = ["callbacks=gallery", "callbacks.gallery=null", "callbacks.pictures=null"]


def _frames(run_dir: Path, name: str = "samples") -> list[int]:
    return sorted(int(path.stem) for path in (run_dir / "pictures" / "frames" / name).glob("*.png"))


def _gif(path: Path) -> tuple[list[np.ndarray], list[int]]:
    pictures, durations = [], []
    with Image.open(path) as gif:
        for i in range(getattr(gif, "n_frames", 1)):
            gif.seek(i)
            pictures.append(np.asarray(gif.convert("RGB")))
            durations.append(int(gif.info["duration"]))
    return pictures, durations


class _Run:
    """What an animation sees of a training of so many batches an epoch."""

    def __init__(self, folder: Path, batches: int = 4, scene: Any = None, **options: Any) -> None:
        epoch_loop = SimpleNamespace(total_batch_idx=-1)
        self.trainer: Any = SimpleNamespace(
            is_global_zero=True,
            current_epoch=0,
            global_step=0,
            num_training_batches=batches,
            is_last_batch=False,
            loggers=[],
            fit_loop=SimpleNamespace(epoch_loop=epoch_loop),
        )
        self.module = VAEModule(tiny_vae(SquaredError(), latent_dim=2), ELBO())
        self.drawn = 0
        self.animation = Animation(str(folder), "a", scene or self._scene, **options)

    def _scene(self, vae: Any) -> np.ndarray:
        self.drawn += 1
        return np.full((4, 150, 3), self.trainer.global_step % 250, np.uint8)

    def go(self, first: int, last: int, end: bool = True) -> None:
        """Trains epochs, counted from 0, the last not included."""
        trainer, loop = self.trainer, self.trainer.fit_loop.epoch_loop
        trainer.current_epoch, trainer.global_step = first, first * trainer.num_training_batches
        loop.total_batch_idx = trainer.global_step - 1
        self.animation.on_train_start(trainer, self.module)
        for epoch in range(first, last):
            trainer.current_epoch = epoch
            for batch in range(trainer.num_training_batches):
                loop.total_batch_idx, trainer.global_step = loop.total_batch_idx + 1, trainer.global_step + 1
                trainer.is_last_batch = batch == trainer.num_training_batches - 1
                self.animation.on_train_batch_end(trainer, self.module, None, None, batch)
            self.animation.on_train_epoch_end(trainer, self.module)
        if end:
            trainer.current_epoch = last
            self.animation.on_train_end(trainer, self.module)

    @property
    def numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.animation.frames.iterdir())


def test_a_run_leaves_a_frame_for_every_epoch(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [*tiny_data, *GALLERY, "trainer.max_epochs=3", "callbacks.manifold_animation.every_n_batches=2"]
    train(composed("train", f"run_dir={tmp_path}", *options))
    pictures, durations = _gif(tmp_path / "pictures" / "samples.gif")
    assert durations == [200, 200, 200, 2000]  # before the training, and after every epoch
    assert pictures[0].shape == (4 * (3 * 28 + 2) + 2 + 22, 4 * (3 * 28 + 2) + 2, 3)
    assert not np.array_equal(pictures[1], pictures[2])
    pictures, durations = _gif(tmp_path / "pictures" / "manifold.gif")
    assert len(durations) == 5  # and after the second of four batches
    assert pictures[0].shape == (20 * 28 + 22, 20 * 28, 3)


def test_a_resumed_training_has_the_whole_animation_where_it_was(tmp_path: Path, tiny_data: list[str]) -> None:
    small = ["callbacks.manifold_animation.every_n_batches=2", "callbacks.manifold_animation.scene.count=3"]
    options = [*tiny_data, *GALLERY, *small]
    longer, go_on = "trainer.max_epochs=3", f"ckpt_path={tmp_path / 'first'}"
    train(composed("train", f"run_dir={tmp_path / 'whole'}", *options, longer))
    train(composed("train", f"run_dir={tmp_path / 'first'}", *options))
    train(composed("train", f"run_dir={tmp_path / 'second'}", *options, longer, go_on))
    stray = tmp_path / "first" / "pictures" / "frames" / "samples" / "000003.png"
    stray.write_bytes(b"of an epoch that is trained again")
    train(composed("train", f"run_dir={tmp_path / 'first'}", *options, longer, go_on))
    for name, begin, end in (("samples", 2, 3), ("manifold", 3, 4)):
        assert _frames(tmp_path / "first", name) == list(range(end + 1))
        assert _frames(tmp_path / "second", name) == [begin, end]
        whole, _ = _gif(tmp_path / "whole" / "pictures" / f"{name}.gif")
        again, durations = _gif(tmp_path / "first" / "pictures" / f"{name}.gif")
        assert len(durations) == end + 1
        assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))


def test_batches_of_the_first_epoch_are_counted(tmp_path: Path) -> None:
    run = _Run(tmp_path, batches=10, every_n_batches=3)
    run.go(0, 2)
    # Before the training; after batches 3, 6 and 9; after two epochs.
    assert run.numbers == [0, 1, 2, 3, 4, 5]
    shades = [int(np.asarray(Image.open(path))[-1, 0, 0]) for path in sorted(run.animation.frames.iterdir())]
    assert shades == [0, 3, 6, 9, 10, 20]


def test_the_last_batch_and_the_end_of_the_epoch_are_one_frame(tmp_path: Path) -> None:
    run = _Run(tmp_path, batches=6, every_n_batches=3)
    run.go(0, 2)
    assert run.numbers == [0, 1, 2, 3]  # before, after batch 3, after each epoch


@pytest.mark.parametrize("epochs", [1, 9, 10, 11, 57, 1000])
def test_long_trainings_have_few_frames(tmp_path: Path, epochs: int) -> None:
    run = _Run(tmp_path, batches=1, max_frames=10)
    run.go(0, epochs)
    assert run.numbers[0] == 0
    assert run.numbers[-1] == epochs
    assert len(run.numbers) <= 12
    assert len(run.numbers) >= min(epochs + 1, 6)
    gaps = np.diff(run.numbers[:-1])
    assert len(set(gaps.tolist())) <= 1  # evenly spread
    assert run.drawn <= 12 + 5 * max(0, int(np.ceil(np.log2(epochs / 10))))  # and no more are drawn than needed


def test_thinning_survives_an_interruption(tmp_path: Path) -> None:
    whole, parts = _Run(tmp_path / "whole", batches=1, max_frames=8), []
    whole.go(0, 50)
    for first, last in ((0, 13), (13, 31), (31, 50)):
        parts.append(_Run(tmp_path / "parts", batches=1, max_frames=8))
        parts[-1].go(first, last, end=last == 50)
    assert parts[-1].numbers == whole.numbers


def test_another_training_in_the_same_folder_begins_anew(tmp_path: Path) -> None:
    _Run(tmp_path).go(0, 5)
    run = _Run(tmp_path)
    run.go(0, 1)
    assert run.numbers == [0, 1]


def test_an_interrupted_training_has_its_animation(tmp_path: Path) -> None:
    run = _Run(tmp_path)
    run.go(0, 3, end=False)
    run.animation.on_exception(run.trainer, run.module, KeyboardInterrupt())
    assert len(_gif(tmp_path / "a.gif")[1]) == 4


def test_what_cannot_be_drawn_is_tried_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def scene(vae: Any) -> np.ndarray:
        calls.append(vae)
        raise RuntimeError("out of memory")

    run = _Run(tmp_path, scene=scene)
    run.go(0, 4)
    assert len(calls) == 1
    assert [record.getMessage() for record in caplog.records] == ["a.gif: failed: RuntimeError: out of memory"]
    assert not (tmp_path / "a.gif").exists()


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_manifold_decodes_normal_quantiles(latent_dim: int) -> None:
    vae = tiny_vae(SquaredError(), (3, 5, 4), latent_dim)
    picture = animation.manifold(vae, count=3)
    assert picture.shape == (5 * 3 ** (latent_dim - 1), 12, 3)
    with torch.no_grad():
        corner = vae.decode(manifold_latents(3, latent_dim, range(latent_dim))[-1:]).mean
    assert np.array_equal(picture[-5:, -4:], image_grid(corner, gap=0))


def test_of_more_dimensions_a_plane_of_chance_is_the_manifold() -> None:
    vae = tiny_vae(SquaredError(), latent_dim=6)
    seen: list[torch.Tensor] = []
    decode = vae.decode
    vae.decode = lambda z, y=None: (seen.append(z), decode(z, y))[1]  # type: ignore[method-assign, func-returns-value]
    with torch.no_grad():
        first, second = animation.manifold(vae, count=3), animation.manifold(vae, count=3)
    assert np.array_equal(first, second)
    inside = manifold_latents(3, 2, [0, 1])
    centre = seen[0][4]  # of nine
    assert torch.allclose((seen[0] - centre).norm(dim=1), inside.norm(dim=1), atol=1e-6)
    assert torch.allclose(seen[0].square().sum(1), inside.square().sum(1) + centre.square().sum(), atol=1e-5)
    assert torch.linalg.matrix_rank(seen[0] - centre) == 2


def test_the_manifold_of_large_images_has_room() -> None:
    with torch.no_grad():
        picture = animation.manifold(tiny_vae(SquaredError(), (1, 70, 35), latent_dim=2), count=20)
    assert picture.shape == (640, 320, 3)


def test_samples_are_of_the_same_latents_in_every_frame(tmp_path: Path) -> None:
    run = _Run(tmp_path, scene=animation.samples)
    run.go(0, 2)
    frames = [np.asarray(Image.open(path))[22:] for path in sorted(run.animation.frames.iterdir())]
    assert all(np.array_equal(frame, frames[0]) for frame in frames)  # the model has not changed


def test_an_animation_that_was_not_written_is_written_when_no_step_is_left(
    tmp_path: Path, tiny_data: list[str]
) -> None:
    options = [*tiny_data, *GALLERY, "report=false", "callbacks.latents=null"]
    train(composed("train", *options, f"run_dir={tmp_path}"))
    file = tmp_path / "pictures" / "samples.gif"
    before = file.read_bytes()
    for missing in (file, tmp_path / "metrics.json", sorted(file.parent.glob("frames/samples/*.png"))[-1]):
        missing.unlink()
    train(composed("train", *options, f"run_dir={tmp_path}", f"ckpt_path={tmp_path}"))
    assert file.read_bytes() == before
