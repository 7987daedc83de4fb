"""What generate.py draws of a trained model, of which images, and what it refuses."""

import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaelab
from tests.conftest import composed
from vaelab.commands.generate import generate
from vaelab.commands.train import train
from vaelab.runtime.errors import UserError

MOVING = {"interpolation", "traversal", "timeline"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("run")
    options = ("callbacks=gallery", "callbacks.gallery=null", "callbacks.manifold_animation=null", "latent_dim=3")
    train(composed("train", f"run_dir={folder}", *tiny_data, *options))
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark on light, of another size, in colour."""
    pixels = np.full((40, 60, 3), 230, np.uint8)
    pixels[10:30, 25:35] = (40, 10, 20)
    path = tmp_path_factory.mktemp("photo") / "a $photo$ with a name that is long.png"
    Image.fromarray(pixels).save(path)
    return path


def _generate(run: Path, out: Path, *options: str) -> dict[str, Path]:
    files = generate(composed("generate", f"run={run}", f"run_dir={out}", *options))
    return {file.name: file for file in files}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_all_there_is(run_dir: Path, tmp_path: Path) -> None:
    few = ["count=6", "frames=4", "pictures.manifold.count=4", "pictures.class_samples.per_class=2"]
    files = _generate(run_dir, tmp_path, "what=all", "format=both", f"beside={run_dir}", *few)
    names = set(composed("generate", "run=x").pictures)
    assert {name for name in files if name.endswith(".png")} == {f"{name}.png" for name in names}
    assert {name for name in files if name.endswith(".npz")} == {f"{name}.npz" for name in names}
    assert {name for name in files if name.endswith(".gif")} == {f"{name}.gif" for name in MOVING}
    for name in names:
        assert np.asarray(Image.open(files[f"{name}.png"])).std() > 5, name
    for name in ("samples", "reconstructions", "interpolation", "traversal", "manifold", "arithmetic", "class_samples"):
        arrays = _arrays(files[f"{name}.npz"])
        assert arrays["pictures"].shape[-3:] == (1, 28, 28), name
        assert arrays["latents"].shape == (*arrays["pictures"].shape[:-3], 3), name
        assert arrays["seed"] == 0
        again = vaelab.load(run_dir).decode(arrays["latents"].reshape(-1, 3))
        np.testing.assert_allclose(again, arrays["pictures"].reshape(-1, 1, 28, 28), atol=1e-5)


def test_samples_are_those_of_the_loaded_model(run_dir: Path, tmp_path: Path) -> None:
    files = _generate(run_dir, tmp_path, "what=samples", "count=5", "seed=3", "temperature=0.5", "format=npz")
    assert set(files) == {"samples.npz"}
    expected = vaelab.load(run_dir).sample(5, seed=3, temperature=0.5)
    np.testing.assert_allclose(_arrays(files["samples.npz"])["pictures"], expected, atol=1e-6)


def test_a_picture_is_the_same_beside_others(run_dir: Path, tmp_path: Path) -> None:
    alone = _generate(run_dir, tmp_path / "a", "what=samples", "count=4")
    among = _generate(run_dir, tmp_path / "b", "what=[reconstructions,samples]", "count=4")
    assert alone["samples.png"].read_bytes() == among["samples.png"].read_bytes()


def test_chosen_images_and_files_of_one_s_own(
    run_dir: Path, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = ["what=[reconstructions,interpolation,traversal,arithmetic]", "format=both", "frames=5"]
    files = _generate(run_dir, tmp_path, *what, "images=[7]", f"files=['{photo}']", "steps=3")
    said = capsys.readouterr().out
    assert "made grey, cropped from 60 x 40 to 40 x 40, scaled from 40 x 40 to 28 x 28\n" in said
    assert "is light, and this model's images are dark: invert=true?" in said
    arrays = _arrays(files["reconstructions.npz"])
    assert arrays["names"][0].startswith("image 7 (")
    assert len(arrays["names"][1]) <= 24
    originals, latents = arrays["originals"], arrays["latents"]
    model = vaelab.load(run_dir)
    np.testing.assert_allclose(model.encode(originals), latents, atol=1e-5)
    assert originals[1].mean() > 0.7
    way = _arrays(files["interpolation.npz"])["latents"]
    np.testing.assert_allclose(way[0], [latents[0], latents.mean(0), latents[1]], atol=1e-5)
    moved = _arrays(files["traversal.npz"])
    for row, dimension, start in zip(moved["latents"], moved["dimensions"], np.repeat(latents, 3, 0), strict=True):
        others = np.delete(np.arange(3), dimension)
        np.testing.assert_allclose(row[:, others], np.tile(start[others], (len(row), 1)), atol=1e-5)
        assert (np.diff(row[:, dimension]) > 0).all()
    options = ("what=reconstructions", "format=npz", f"files=['{photo}']", "invert=true")
    negative = _generate(run_dir, tmp_path / "negative", *options)
    said = capsys.readouterr().out
    assert "28 x 28, inverted\n" in said
    assert "invert=" not in said
    np.testing.assert_allclose(_arrays(negative["reconstructions.npz"])["originals"][0], 1 - originals[1], atol=1e-6)


def test_an_animation_goes_there_and_back(run_dir: Path, tmp_path: Path) -> None:
    files = _generate(run_dir, tmp_path, "what=interpolation", "images=[0,1]", "frames=6")
    with Image.open(files["interpolation.gif"]) as gif:
        frames = []
        for i in range(getattr(gif, "n_frames", 1)):
            gif.seek(i)
            frames.append(np.asarray(gif.convert("RGB")))
    assert len(frames) == 2 * 6 - 2  # rests are long frames
    for there, back in zip(frames[1:5], frames[:5:-1], strict=True):
        assert np.array_equal(there, back)
    assert not np.array_equal(frames[0], frames[5])


def test_a_conditional_model_is_told_the_classes_of_files(
    finished_conditional_run: Path, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("format=npz", f"files=['{photo}']", "invert=true")
    what = "what=[reconstructions,class_samples,traversal]"
    files = _generate(finished_conditional_run, tmp_path, what, *options, "labels=[4]")
    assert "thresholded at one half, of class 4\n" in capsys.readouterr().out
    arrays = _arrays(files["reconstructions.npz"])
    assert set(np.unique(arrays["originals"])) == {0, 1}
    model = vaelab.load(finished_conditional_run)
    np.testing.assert_allclose(model.reconstruct(arrays["originals"], [4]), arrays["pictures"], atol=1e-5)
    rows = _arrays(files["class_samples.npz"])
    assert rows["labels"].tolist() == np.repeat(np.arange(10), 10).tolist()
    np.testing.assert_array_equal(rows["latents"][:10], rows["latents"][-10:])
    for labels, said in (("null", "0 labels for 1 files"), ("[4,4]", "2 labels for 1"), ("[nine]", "no such class")):
        with pytest.raises(UserError, match=said):
            _generate(finished_conditional_run, tmp_path, what, *options, f"labels={labels}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["what=nothing"], "what=nothing: no such picture; choose from all, samples"),
        (["what=comparison"], "what=comparison needs another model"),
        (["what=timeline", "pictures.timeline.name=manifold"], r"neither manifold\.gif nor its frames"),
        (["images=[3,900]"], "there is no image 900: the test images are 0 to 63"),
        (
            ["images=[a]"],
            r"images=\[a\]: it must be an integer, a list of integers or null; type e.g. 'images=\[3,17\]'",
        ),
        (["images=[1,2,3]", "what=interpolation"], "needs pairs of images, and there are 3"),
        (["files=none.png"], r"files=none\.png: there is no such file"),
        ([f"files={__file__}"], "cannot be read"),
        (["labels=[1]"], "this model is not conditional; leave labels out"),
        (["invert=true"], "for images that files"),
        (["format=jpg"], "format=jpg: it must be png, npz or both"),
        (["count=0"], "count=0: it must be a positive integer"),
        (["pictures.manifold.count=x"], r"pictures\.manifold\.count=x: it must be a positive integer"),
        (["steps=1"], "steps=1: it must be an integer of at least 2"),
        (["temperature=-1"], "temperature=-1: it must be a finite number of at least 0"),
    ],
)
def test_what_is_refused(run_dir: Path, tmp_path: Path, options: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        _generate(run_dir, tmp_path, *options)


def test_all_leaves_out_what_there_is_not(
    finished_conditional_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = _generate(finished_conditional_run, tmp_path, "what=all", "count=4", "frames=2")
    said = capsys.readouterr().out
    for name in ("comparison", "timeline", "losses"):
        assert f"no {name}: " in said
        assert f"{name}.png" not in files
    assert "traversal.gif" in files


def test_the_labels_that_are_suggested_for_files_work(
    finished_conditional_run: Path, tmp_path: Path, photo: Path
) -> None:
    options = ("what=reconstructions", f"files=['{photo}','{photo}','{photo}']", "invert=true")
    with pytest.raises(UserError, match="0 labels for 3 files: type e.g. ") as caught:
        _generate(finished_conditional_run, tmp_path, *options)
    (suggestion,) = shlex.split(str(caught.value).rpartition("type e.g. ")[2])
    assert _generate(finished_conditional_run, tmp_path, *options, suggestion)


@pytest.fixture(scope="module")
def of_twelve_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on grey images of 12 bits in files of 16 bits, in classes with names in several scripts."""
    folder = tmp_path_factory.mktemp("run")
    for name in ("\u732b", os.fsdecode(b"caf\xe9")):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.random.default_rng(i).integers(0, 4096, (8, 8)).astype(np.uint16)
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")
    train(
        composed(
            "train",
            f"run_dir={folder / 'run'}",
            "data=image_folder",
            f"data.source.folder={folder / 'images'}",
            f"data.source.cache_dir={folder / 'cache'}",
            "data.image_shape=[1,8,8]",
            "model=mlp",
            "latent_dim=2",
            "trainer.max_epochs=1",
            "trainer.accelerator=cpu",
            "logger=csv",
            "callbacks.gallery=null",
        )
    )
    return folder


def test_one_s_own_files_have_the_range_of_the_training_images(
    of_twelve_bits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / os.fsdecode(b"na\xefve.png")
    Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(tmp_path / "bright.png")
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(own)
    options = ("what=[reconstructions,interpolation,traversal,latents]", "format=both", "frames=3")
    files = _generate(of_twelve_bits / "run", tmp_path, *options, f"files=['{own}','{tmp_path / 'bright.png'}']")
    assert capsys.readouterr().out.count("black is 0 and white is 4095") == 2
    originals = _arrays(files["reconstructions.npz"])["originals"]
    assert np.unique(originals[0]) == pytest.approx(1000 / 4095, abs=1 / 255)
    assert originals[1].min() == 1


def test_new_files_do_not_change_the_range_of_a_trained_model(of_twelve_bits: Path, tmp_path: Path) -> None:
    def tested() -> np.ndarray:
        files = _generate(of_twelve_bits / "run", tmp_path, "what=errors", "format=npz")
        return _arrays(files["errors.npz"])["errors"]

    before = tested()
    bright = of_twelve_bits / "images" / "\u732b" / "bright.png"
    Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(bright)
    try:
        assert np.abs(before[:, None] - tested()).min(1).max() < 1e-6
    finally:
        bright.unlink()


@pytest.mark.parametrize("top", [100, 4095])
def test_files_of_more_than_8_bits_for_a_model_of_other_images(
    run_dir: Path, tmp_path: Path, top: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((28, 28), top, np.uint16)).save(tmp_path / "a.png")
    options = ("what=reconstructions", "format=npz", f"files=['{tmp_path / 'a.png'}']")
    if top == 100:
        with pytest.raises(UserError, match="does not tell what is black and white: convert them to 8 bits"):
            _generate(run_dir, tmp_path, *options)
    else:
        files = _generate(run_dir, tmp_path, *options)
        assert "black is 0 and white is 4095" in capsys.readouterr().out
        assert _arrays(files["reconstructions.npz"])["originals"].min() == 1
