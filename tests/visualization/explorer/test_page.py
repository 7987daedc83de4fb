"""The page in a real browser, used as a person uses it: with a mouse, with a finger and with keys."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import composed
from vaelab.commands.explore import explore
from vaelab.commands.train import train
from vaelab.models.vae import VAE
from vaelab.runs import checkpoint

LEVEL = 1.01  # of 255: the canvas rounds


Page = Callable[..., Any]


def explored(folder: Path, tiny_data: list[str], *overrides: str) -> tuple[Path, VAE]:
    """The page of a small model, and the model."""
    settings = {setting.partition("=")[0]: setting for setting in [*tiny_data, "callbacks=none", *overrides]}
    train(composed("train", f"run_dir={folder}", *settings.values()))
    file = explore(composed("explore", f"run={folder}", f"run_dir={folder}", "open=false", "draws=200"))
    return file, checkpoint.rebuild(checkpoint.find(folder)).vae


@pytest.fixture(scope="module")
def deep(chromium: Any, tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> tuple[Path, VAE]:
    options = ("model=conv", "latent_dim=12", "data.limit=400", "trainer.max_epochs=4", "optimizer.lr=3e-3")
    return explored(tmp_path_factory.mktemp("deep"), tiny_data, *options)


def shown(opened: Any, canvas: str = "#image") -> torch.Tensor:
    """The pixels of a canvas, red."""
    levels = opened.evaluate(
        """(which) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
            const canvas = document.querySelector(which);
            const copy = new OffscreenCanvas(canvas.width, canvas.height);
            const context = copy.getContext("2d", { willReadFrequently: true });
            context.drawImage(canvas, 0, 0);
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            done(Array.from(data).filter((_, i) => i % 4 === 0));
        })))""",
        canvas,
    )
    return torch.tensor(levels, dtype=torch.float32)


def z_of(opened: Any) -> torch.Tensor:
    return torch.tensor(opened.evaluate("Array.from(explorer.state.z)"), dtype=torch.float32)


def assert_decoded(opened: Any, vae: VAE) -> torch.Tensor:
    """The image on the page is what torch makes of the page's latent; it is returned."""
    image = shown(opened)
    y = opened.evaluate("explorer.state.y && Array.from(explorer.state.y)")
    with torch.no_grad():
        expected = vae.decode(z_of(opened)[None], None if y is None else torch.tensor([y], dtype=torch.float32)).mean
    assert float((image - 255 * expected.flatten()).abs().max()) <= LEVEL
    return image


def middle(opened: Any, selector: str) -> tuple[float, float]:
    box = opened.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


class Watched:
    """A page whose image is compared with torch's, and with what it was, whenever it should have changed."""

    def __init__(self, opened: Any, vae: VAE) -> None:
        self.opened, self.vae = opened, vae
        self.image = assert_decoded(opened, vae)

    def assert_changed(self) -> None:
        now = assert_decoded(self.opened, self.vae)
        assert not torch.equal(now, self.image)
        self.image = now


@pytest.fixture
def watched(page: Page, deep: tuple[Path, VAE]) -> Watched:
    address, vae = deep
    return Watched(page(address), vae)


PANEL = "[role=tabpanel]:not([hidden])"


def test_the_map_is_looked_at_clicked_dragged_and_zoomed(watched: Watched) -> None:
    opened = watched.opened
    x, y = middle(opened, "#plane")
    opened.mouse.move(x + 40, y + 30)
    assert opened.locator("#lens").is_visible()
    assert shown(opened, "#lens canvas").std() > 0
    opened.mouse.down()
    for there in ((-120, 60), (90, -150)):
        opened.mouse.move(x + there[0], y + there[1], steps=5)
        watched.assert_changed()
    opened.mouse.up()
    places = torch.tensor(list(opened.evaluate("Array.from(explorer.places())"))).view(-1, 2)
    central = int((places - places.median(0).values).square().sum(1).argmin())  # not beneath a button of the map's rim
    at = opened.evaluate(f"explorer.toScreen(explorer.places().slice({2 * central}, {2 * central + 2}))")
    box = opened.locator("#plane").bounding_box()
    opened.mouse.click(box["x"] + at[0], box["y"] + at[1])
    watched.assert_changed()  # which waits until it is drawn, and so until it is said
    assert "the code of test image" in opened.locator("#nearest").inner_text()
    opened.mouse.wheel(0, -300)
    assert torch.equal(shown(opened), watched.image)
    opened.get_by_role("button", name="show all").click()
    opened.get_by_role("button", name="Decoded").click()
    opened.wait_for_timeout(500)
    assert shown(opened, "#tiles").std() > 0


def test_a_slider_moves_its_dimension_alone(watched: Watched) -> None:
    opened = watched.opened
    slider = opened.locator(f"{PANEL} input[type=range]").first
    dimension = int(slider.get_attribute("aria-label").split()[1])
    z = z_of(opened)
    slider.focus()
    for _ in range(40):
        opened.keyboard.press("ArrowRight")
    watched.assert_changed()
    difference = (z_of(opened) - z).abs()
    assert float(difference[dimension]) > 0.1
    assert float(difference.sum()) == pytest.approx(float(difference[dimension]))
    slider.dblclick()
    assert abs(float(z_of(opened)[dimension])) < 1e-6
    opened.get_by_role("button", name="All 12 dimensions").click()
    assert opened.locator(f"{PANEL} input[type=range]:visible").count() == 12


def test_between_two_images_and_along_an_attribute(watched: Watched) -> None:
    opened = watched.opened
    opened.get_by_role("tab", name="Interpolation").click()
    box = opened.locator("#plane").bounding_box()
    for letter, place in (("A", (0.3, 0.4)), ("B", (0.7, 0.6))):
        opened.get_by_role("button", name=f"Pick {letter}").click()
        opened.mouse.click(box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"])
    ends = opened.evaluate("explorer.state.ends")
    assert None not in ends
    assert ends[0] != ends[1]
    watched.assert_changed()
    way = opened.get_by_label("from A to B")
    way.fill("0.5")
    watched.assert_changed()
    a, b = (torch.tensor(opened.evaluate(f"(explorer.goToImage({i}), Array.from(explorer.state.z))")) for i in ends)
    way.fill("0.25")
    way.fill("0.5")
    torch.testing.assert_close(z_of(opened), (a + b) / 2)
    opened.get_by_role("button", name="100 % of the way").click()
    torch.testing.assert_close(z_of(opened), b)

    opened.get_by_role("tab", name="Attributes").click()
    shown(opened)
    watched.image = assert_decoded(opened, watched.vae)
    opened.get_by_label("thickness").fill("1.5")
    watched.assert_changed()
    opened.get_by_label("thickness").fill("0")
    torch.testing.assert_close(z_of(opened), b)  # what was added is taken away again


def test_samples_are_drawn_by_seed_and_taken(watched: Watched) -> None:
    opened = watched.opened
    opened.get_by_role("tab", name="Samples").click()
    opened.get_by_role("button", name="sample 3", exact=True).click()
    watched.assert_changed()
    first = shown(opened, "#samples canvas")
    opened.get_by_role("button", name="Sample again").click()
    opened.wait_for_function("document.querySelector('input[type=number]').value === '1'")
    assert not torch.equal(shown(opened, "#samples canvas"), first)
    opened.get_by_label("seed").fill("0")
    opened.keyboard.press("Enter")
    opened.wait_for_timeout(300)
    assert torch.equal(shown(opened, "#samples canvas"), first)
    opened.locator(f"{PANEL} input[type=range]").fill("0")  # the temperature
    opened.get_by_role("button", name="sample 1", exact=True).click()
    assert float(z_of(opened).abs().max()) == 0


def test_keys_alone_will_do(page: Page, deep: tuple[Path, VAE]) -> None:
    address, vae = deep
    opened = page(address, color_scheme="dark")
    opened.locator("#plane").focus()
    before = shown(opened)
    for _ in range(6):
        opened.keyboard.press("Shift+ArrowLeft")
    assert not torch.equal(assert_decoded(opened, vae), before)
    opened.keyboard.press("Enter")
    opened.keyboard.press("a")
    for _ in range(9):
        opened.keyboard.press("Shift+ArrowRight")
    opened.keyboard.press("b")
    assert None not in opened.evaluate("explorer.state.ends")
    opened.get_by_role("tab", name="Dimensions").focus()
    opened.keyboard.press("ArrowRight")
    assert opened.get_by_role("tab", name="Interpolation").get_attribute("aria-selected") == "true"
    assert_decoded(opened, vae)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_a_conditional_model_under_a_finger(page: Page, latent_dim: int, tmp_path: Path, tiny_data: list[str]) -> None:
    options = ["conditional=true", f"latent_dim={latent_dim}", "data.limit=200", "trainer.max_epochs=4"]
    address, vae = explored(tmp_path, tiny_data, *options)
    phone = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    opened = page(address, width=390, **phone)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    before = assert_decoded(opened, vae)
    opened.get_by_role("radio", name="7").tap()
    after = assert_decoded(opened, vae)
    assert not torch.equal(after, before)
    assert opened.evaluate("Array.from(explorer.state.y)")[7] == 1
    x, y = middle(opened, "#plane")
    opened.touchscreen.tap(x + 60, y + 50)
    assert not torch.equal(assert_decoded(opened, vae), after)
    opened.get_by_role("tab", name="Interpolation").tap()
    opened.get_by_role("button", name="Two at random").tap()
    opened.get_by_label("from A to B").fill("0.5")
    assert_decoded(opened, vae)
    weights = opened.evaluate("Array.from(explorer.state.y)")
    assert sum(weights) == pytest.approx(1)
    assert max(weights) == pytest.approx(0.5)  # of two classes
