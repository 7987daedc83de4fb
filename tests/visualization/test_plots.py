"""Pictures hold what they should, where they should."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vaelab.visualization import plots
from vaelab.visualization.plots import text
from vaelab.visualization.plots.style import PALETTE, spread


def _contains(picture: np.ndarray, part: np.ndarray) -> bool:
    """Whether a part lies somewhere in a picture, pixel by pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(picture[..., 0], part.shape[:2])
    rows, columns = np.nonzero((windows[..., 0, 0] == part[0, 0, 0]) & (windows[..., -1, -1] == part[-1, -1, 0]))
    height, width = part.shape[:2]
    places = zip(rows.tolist(), columns.tolist(), strict=True)
    return any(np.array_equal(picture[y : y + height, x : x + width], part) for y, x in places)


def _has_color(picture: np.ndarray, color: str) -> bool:
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(picture.astype(int) - wanted).max(-1) <= 1).any())


def test_a_grid_puts_every_image_in_its_place() -> None:
    images = torch.rand(5, 3, 4, 6)
    grid = plots.image_grid(images, columns=3, scale=2, gap=1)
    assert grid.shape == (2 * (8 + 1) + 1, 3 * (12 + 1) + 1, 3)
    assert grid.dtype == np.uint8
    for i, image in enumerate(images):
        y, x = 1 + i // 3 * 9, 1 + i % 3 * 13
        expected = (image * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(grid[y : y + 8 : 2, x : x + 12 : 2], expected)


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_a_grid_shows_any_number_of_channels(channels: int, shown: list[int]) -> None:
    images = torch.rand(1, channels, 3, 3)
    expected = (images[0, shown] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(plots.image_grid(images, gap=0), expected)


def test_a_grid_is_square_where_it_can_be() -> None:
    for count, side in ((25, 5), (64, 8), (16, 4)):
        assert plots.image_grid(torch.zeros(count, 1, 2, 2), gap=0).shape == (2 * side, 2 * side, 3)


def test_reconstructions_lie_below_their_originals() -> None:
    originals, reconstructions = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    grid = plots.reconstruction_grid(originals, reconstructions, columns=2)[2:-2:4, 2:-2:4, 0]
    assert grid.tolist() == [[0, 0], [255, 255], [0, plots.BACKGROUND], [255, plots.BACKGROUND]]


def test_rows_of_reconstructions_are_of_equal_length() -> None:
    images = torch.zeros(25, 1, 2, 2)
    assert plots.reconstruction_grid(images, images).shape == (2 + 4 * (2 + 2), 2 + 13 * (2 + 2), 3)


@pytest.mark.parametrize(("shape", "columns"), [((6, 1, 28, 28), 3), ((4, 3, 13, 9), 4), ((2, 1, 100, 130), 1)])
def test_a_labelled_grid_holds_the_grid_and_nothing_is_cut_off(shape: tuple[int, ...], columns: int) -> None:
    images = torch.rand(*shape)
    rows = shape[0] // columns
    picture = plots.labelled_grid(images, columns, "a title", ["top"] * columns, ["a long name"] * rows)
    scale = max(1, round(84 / shape[-1]))
    assert _contains(picture, plots.image_grid(images, columns, scale))
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (border == 255).all()


def test_class_reconstructions_are_pairs_in_the_order_of_the_classes() -> None:
    """Every image is a shade of its own, and its reconstruction the next brighter one."""
    labels = torch.tensor([2, 0, 2, 0, 5, 5])
    originals = (torch.arange(6.0) * 40 / 255).view(6, 1, 1, 1).expand(6, 1, 28, 28)
    picture = plots.class_reconstructions(originals, originals + 10 / 255, labels, [str(i) for i in range(6)])
    order = torch.tensor([1, 3, 0, 2, 4, 5])
    pairs = torch.stack([originals, originals + 10 / 255], 1)[order].flatten(0, 1)
    assert _contains(picture, plots.image_grid(pairs, columns=4, scale=3))


def test_many_classes_go_on_beside_each_other() -> None:
    def drawn(classes: int) -> np.ndarray:
        labels = torch.arange(classes)
        images = torch.rand(classes, 3, 8, 8)
        return plots.class_reconstructions(images, images, labels, [""] * classes)

    ten, twelve = drawn(10), drawn(12)
    assert twelve.shape[0] == ten.shape[0]
    assert twelve.shape[1] == 2 * ten.shape[1]


@pytest.mark.parametrize("shape", [(50, 3), (50, 20), (10, 30), (40, 2)])
def test_pca_is_the_truncated_singular_value_decomposition(shape: tuple[int, int]) -> None:
    points = torch.randn(*shape) * torch.linspace(3, 1, shape[1]) + 7
    coordinates, explained = plots.pca(points)
    centred = points.double() - points.double().mean(0)
    u, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    assert torch.allclose(coordinates.abs(), (u[:, :2] * singular[:2]).abs(), atol=1e-4)
    assert torch.allclose(explained, singular[:2].square() / centred.square().sum(), atol=1e-5)
    assert explained[0] >= explained[1]


def test_pca_does_not_depend_on_the_sign_that_a_decomposition_happens_to_choose() -> None:
    points = torch.randn(60, 4) * torch.tensor([4.0, 2.0, 1.0, 0.5])
    coordinates, _ = plots.pca(points)
    for i in range(2):  # the loadings are nearly the unit vectors
        assert np.corrcoef(coordinates[:, i], points[:, i])[0, 1] > 0.9


@pytest.mark.parametrize(("latent_dim", "classes"), [(1, 10), (2, 1), (2, 10), (7, 3), (7, 40)])
def test_latent_scatter_draws_any_size_and_number_of_classes(latent_dim: int, classes: int) -> None:
    points, labels = torch.randn(200, latent_dim), torch.arange(200) % classes
    names = [f"class {i}" for i in range(classes)]
    both = plots.latent_scatter(points, points, labels, names)
    assert both.shape[1] > plots.latent_scatter(points, None, labels, names).shape[1]
    for i in range(classes if 1 < classes <= 10 else 0):
        assert _has_color(both, PALETTE[i]), names[i]


def test_labels_are_moved_apart_and_others_are_left_where_they_are() -> None:
    boxes = np.array([[0, 0, 10, 4], [5, 1, 15, 5], [9, 2, 12, 6], [40, 0, 50, 4], [0, 30, 10, 34]], float)
    apart = spread(boxes)
    assert np.array_equal(apart[3:], boxes[3:])
    assert np.array_equal(apart[:, ::2], boxes[:, ::2])
    np.testing.assert_allclose(apart[:, 3] - apart[:, 1], boxes[:, 3] - boxes[:, 1])
    for i, j in ((0, 1), (1, 2), (0, 2)):
        assert min(apart[i, 3], apart[j, 3]) - max(apart[i, 1], apart[j, 1]) < 0.02


def test_latent_scatter_has_one_scale_for_both_axes() -> None:
    """A square of points is drawn as a square, however wide the panel is."""
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).repeat(50, 1)
    picture = plots.latent_scatter(square, None, torch.zeros(200, dtype=torch.int64), [""]).astype(int)
    y, x = np.nonzero(np.abs(picture - [0x3F, 0x90, 0xDA]).max(-1) < 40)
    assert y.max() - y.min() == pytest.approx(x.max() - x.min(), abs=3)


@pytest.mark.parametrize("errors", [torch.rand(500), torch.rand(1), torch.zeros(30)])
def test_histogram_draws_any_errors(errors: Tensor) -> None:
    assert _has_color(plots.error_histogram(errors), PALETTE[0])


def test_manifold_latents_are_normal_quantiles_to_the_right_and_upwards() -> None:
    z = plots.manifold_latents(20, 5, [3, 1]).view(20, 20, 5)  # rows from the top
    low, high = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor([0.05, 0.95])).tolist()
    for row, column, right, up in ((0, 0, low, high), (0, -1, high, high), (-1, 0, low, low), (-1, -1, high, low)):
        assert z[row, column].tolist() == pytest.approx([0, up, 0, right, 0], abs=1e-5)
    probabilities = torch.distributions.Normal(0.0, 1.0).cdf(z[0, :, 3])
    assert torch.allclose(probabilities, torch.linspace(0.05, 0.95, 20), atol=1e-5)
    assert plots.manifold_latents(4, 1, [0]).shape == (4, 1)


@pytest.mark.parametrize(("latent_dim", "dims"), [(1, [0]), (2, [0, 1]), (9, [7, 2])])
def test_manifold_shows_the_images_without_gaps(latent_dim: int, dims: list[int]) -> None:
    images = torch.rand(3 ** len(dims), 1, 100, 370 if len(dims) == 1 else 180)
    picture = plots.manifold_grid(images, latent_dim, dims)
    assert _contains(picture, plots.image_grid(images, 3, gap=0))


def test_a_straight_path_is_straight() -> None:
    start, end = torch.randn(2, 4)
    path = plots.straight_path(start, end, 5)
    assert torch.equal(path[0], start)
    assert torch.equal(path[-1], end)
    assert torch.allclose(path.diff(dim=0), ((end - start) / 4).expand(4, -1), atol=1e-6)


@pytest.mark.parametrize("points", [1, 7, 500])
def test_loss_curves_have_a_panel_for_each_term(points: int) -> None:
    steps = [50.0 * (i + 1) for i in range(points)]
    curve = (steps, [1000 / step for step in steps])
    one = plots.loss_curves({"loss": {"train": curve, "val": curve}}, 10, {"loss": "nats"})
    two = plots.loss_curves({"loss": {"val": curve}, "kl": {"train": curve}}, 10, {"loss": "", "kl": ""})
    assert two.shape[1] == 2 * one.shape[1]
    assert _has_color(two, PALETTE[0])
    assert _has_color(two, PALETTE[6])


def test_compare_has_a_column_for_each_model() -> None:
    labels = torch.arange(30) % 3
    picture = plots.compare(
        ["autoencoder", "VAE"],
        [torch.zeros(4, 1, 8, 8), torch.ones(4, 1, 8, 8)],
        [torch.randn(30, 2), torch.randn(30, 6)],
        labels,
        ["a", "b", "c"],
    )
    samples, latent = picture[: len(picture) // 2, 50:], picture[len(picture) // 2 :]
    dark = (samples == 0).all(-1).sum(0)
    assert dark[: samples.shape[1] // 3].max() > 200  # the black samples are on the left,
    assert dark[samples.shape[1] * 2 // 3 :].max() < 50  # and there are none on the right
    points = (latent.max(-1).astype(int) - latent.min(-1) > 60).sum(0)  # neither white, nor grey, nor black
    assert points[: len(points) // 2].sum() > 300
    assert points[len(points) // 2 : -200].sum() > 300  # without the colour bar


def test_an_animation_has_its_frames_and_holds_the_last(tmp_path: Path) -> None:
    pictures = [np.full((8, 12, 3), shade, np.uint8) for shade in (0, 100, 200, 255)]
    path = plots.save_gif(pictures, tmp_path / "new" / "a.gif", frame_ms=120, hold_ms=1500)
    with Image.open(path) as gif:
        assert (getattr(gif, "n_frames", 1), gif.size, gif.info["loop"]) == (4, (12, 8), 0)
        for i, picture in enumerate(pictures):
            gif.seek(i)
            assert gif.info["duration"] == (1500 if i == 3 else 120)
            assert np.array_equal(np.asarray(gif.convert("RGB")), picture)
    assert [file.name for file in path.parent.iterdir()] == ["a.gif"]


def test_an_animation_keeps_colours(tmp_path: Path) -> None:
    pictures = [plots.image_grid(torch.rand(4, 3, 8, 8).mul(4).round() / 4) for _ in range(3)]
    with Image.open(plots.save_gif(pictures, tmp_path / "a.gif")) as gif:
        for i, picture in enumerate(pictures):
            gif.seek(i)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - picture).mean() < 8


def test_a_caption_adds_a_strip_above() -> None:
    picture = np.zeros((10, 90, 3), np.uint8)
    captioned = plots.captioned(picture, "epoch 3")
    assert np.array_equal(captioned[-10:], picture)
    assert captioned[:-10].max() == 255
    assert captioned[:-10].min() < 50


def test_charts_leave_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.error_histogram(torch.rand(10))
    assert dict(matplotlib.rcParams) == before


def test_an_interrupted_file_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        plots.save_png(np.zeros((2, 2, 7), np.uint8), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_large_images_are_made_smaller_as_a_whole() -> None:
    images = torch.rand(2, 3, 100, 50)
    small = plots.at_most(images, 20)
    assert small.shape == (2, 3, 20, 10)
    assert torch.allclose(small.mean((2, 3)), images.mean((2, 3)), atol=1e-6)
    assert plots.at_most(images, 100) is images
    assert plots.at_most(images, 0).shape == (2, 3, 1, 1)


NAMES = {
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "mathematics": "$x^2$ and $y",
    "half of mathematics": "5$",
    "damaged mathematics": r"$\frac$",
    "Japanese": "\u732b\u3068\u72ac",
    "two lines": "two\nlines",
    "accents": "cafe\u0301",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
def test_every_plot_draws_any_name(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a warning: those of Matplotlib are errors here."""
    monkeypatch.setattr(text, "_told", False)
    codes, labels, images = torch.rand(6, 2), torch.arange(6) % 2, torch.rand(6, 1, 4, 4)
    classes = [name, "b"]
    one = {name: {1.0: [{"a": 1.0}], 2.0: [{"a": 2.0}]}, "b": {1.0: [{"a": 1.0}]}}
    shown = [
        plots.latent_scatter(codes, None, labels, classes),
        plots.compare([name, "b"], [images, images], [codes, codes], labels, classes),
        plots.class_reconstructions(images, images, labels, classes),
        plots.labelled_grid(images, 3, f"from {plots.drawable(name)} $z_1$", left=list(map(plots.drawable, classes))),
        plots.curves_over("a", one, "of", ["a"], "nats"),
        plots.slices({"a": [name, "b"]}, [1.0, 2.0], "a", "nats"),
        plots.rate_distortion({name: [(name, 1.0, 2.0)], "b": [("c", 2.0, 3.0)]}, "of", "along", "nats"),
    ]
    assert all(image.std() > 5 for image in shown)
    assert caplog.text.count("no installed font") <= 1


def test_a_class_whose_name_no_font_can_draw_is_numbered_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = chr(0x10FFFD)  # of the private use of everybody
    monkeypatch.setattr(text, "_told", False)
    assert plots.drawable_classes(["a", f"x{unknown}", "$"]) == ["a", "1", r"\$"]
    assert plots.drawable(f"x{unknown}") == r"x\U0010fffd"
    assert caplog.text.count("no installed font has all characters of 1 names of classes") == 1
    assert f"1 is x{unknown}" in caplog.text


def test_a_font_that_has_the_characters_is_found_and_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """DejaVu Sans stands in for a font that the charts do not use yet; it is the only font that tests can rely on."""
    from matplotlib import font_manager

    sans = font_manager.findfont("DejaVu Sans")
    mono = font_manager.findfont("DejaVu Sans Mono")
    monkeypatch.setattr(text, "families", ["DejaVu Sans Mono"])
    monkeypatch.setattr(text, "_absent", set())
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [mono, sans])
    only = chr(min(text._characters(sans) - text._characters(mono)))
    assert plots.drawable(f"a {only}") == f"a {only}"
    assert text.families == ["DejaVu Sans Mono", "DejaVu Sans"]
    assert plots.drawable("a") == "a"
    assert len(text.families) == 2


@pytest.mark.parametrize(("count", "dimensions"), [(1, 5), (1, 1), (1, 2), (2, 5), (2, 1), (3, 5)])
def test_principal_axes_of_few_points(count: int, dimensions: int) -> None:
    points = torch.rand(count, dimensions)
    projected, shares = plots.pca(points)
    assert projected.shape == (count, min(dimensions, 2))
    assert shares.shape == (min(dimensions, 2),)
    assert projected.isfinite().all()
    assert float(shares.sum()) == pytest.approx(float(count > 1))
