"""Pages of runs, evaluations and sweeps: what stands on them, and that no training fails and no network is asked."""

import io
import json
import logging
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import composed
from vaelab.commands.evaluate import evaluate
from vaelab.commands.report import main
from vaelab.commands.train import train
from vaelab.visualization import report
from vaelab.visualization.report import latent_space
from vaelab.visualization.report.page import _json

ORDER = ["summary", "metrics", "curves", "reconstructions", "samples", "latents", "errors", "config"]
HOSTILE = "</script><script>document.title='broken into'</script><img src=x onerror=\"document.title='again'\">&\u2028'"


class _Parsed(HTMLParser):
    """The text, the ids of the sections and every address of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.sections: list[str] = []
        self.addresses: list[str] = []
        self.elements: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.elements.append(tag)
        self.addresses += [str(values[name]) for name in ("src", "href", "action", "data") if values.get(name)]
        if tag == "section":
            self.sections.append(str(values["id"]))

    def handle_data(self, data: str) -> None:
        if self.lasttag not in ("script", "style"):
            self.words.append(data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> Path:
    """A run with everything that callbacks=gallery leaves, and curves of some length."""
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    options = ["latent_dim=3", "callbacks=gallery", "trainer.max_epochs=6", "data.limit=80"]
    train(composed("train", f"run_dir={run_dir}", *tiny_data, *options))
    return run_dir


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    what = ["what=[latents,reconstructions,scores]", "latents.pairs=40", "scores.samples=2"]
    evaluate(composed("evaluate", f"run={trained}", f"run_dir={folder}", *what))
    return folder


@pytest.fixture(scope="module")
def swept(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four jobs as a sweep leaves them, one of which has failed."""
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    for number, (latent_dim, elbo) in enumerate([(2, -120.0), (20, -95.0), (8, -100.0), (-1, None)]):
        job = folder / str(number)
        (job / ".hydra").mkdir(parents=True)
        OmegaConf.save(["model=mlp", f"latent_dim={latent_dim}"], job / ".hydra" / "overrides.yaml")
        if elbo is None:
            (job / "failed.txt").write_text("latent_dim=-1: it must be a positive integer\n")
            continue
        shutil.copy(trained / "metrics.csv", job)
        shutil.copytree(trained / "pictures", job / "pictures")
        config = OmegaConf.load(trained / "config.yaml")
        config.overrides = ["model=mlp", f"latent_dim={latent_dim}"]
        config.choices = {"data": "digits", "model": "mlp"}
        OmegaConf.save(config, job / "config.yaml")
        figures = json.loads((trained / "metrics.json").read_text())
        (job / "metrics.json").write_text(json.dumps({**figures, "val/elbo": elbo, "test/elbo": elbo - 1.5}))
        report.write(job)
    hydra = {"hydra": {"overrides": {"task": ["model=mlp", "latent_dim=2,20,8,-1"], "hydra": ["hydra.mode=MULTIRUN"]}}}
    OmegaConf.save(hydra, folder / "multirun.yaml")
    report.write(folder)
    return folder


def test_a_training_leaves_a_report_with_everything_in_its_place(trained: Path) -> None:
    parsed = _Parsed(trained / "report.html")
    assert parsed.sections == ORDER
    figures = json.loads((trained / "metrics.json").read_text())
    assert f"{figures['test/elbo']:,.3f}" in parsed.text
    assert "not nats" in parsed.text
    assert "Compare its metrics only with this same loss" in parsed.text
    assert "python src/train.py" in parsed.text
    assert "torch" in parsed.text
    assert "80 train" in parsed.text
    assert "hidden_sizes" in parsed.text  # of the configuration
    shown = sum(address.startswith("data:image/") for address in parsed.addresses)
    assert (
        shown == len([path for path in (trained / "pictures").iterdir() if path.is_file()]) - 3
    )  # latents, losses, errors
    assert any(address.startswith("data:image/gif") for address in parsed.addresses)
    assert (trained / "report.html").stat().st_size < 3.5e6


@pytest.mark.parametrize("folder", ["trained", "evaluated", "swept"])
def test_no_page_names_anything_elsewhere(folder: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(folder) / "report.html"
    parsed = _Parsed(path)
    for address in parsed.addresses:
        inside = address.startswith(("data:image/", "#"))
        assert inside or (re.match(r"[\w.]+/[\w./]*$", address) and (path.parent / address).is_file()), address
    assert "link" not in parsed.elements
    assert re.search(
        r"Content-Security-Policy\" content=\"default-src &#39;none&#39;; img-src data:; ", path.read_text()
    )


def test_an_evaluation_says_how_each_figure_was_come_by(evaluated: Path, trained: Path) -> None:
    parsed = _Parsed(evaluated / "report.html")
    evaluation = json.loads((evaluated / "evaluation.json").read_text())
    for values in evaluation["metrics"].values():
        assert values.get("note", "") in parsed.text
    assert "± " in parsed.text
    assert "active" in parsed.text
    assert parsed.sections == ["summary", "metrics", "latents", "errors", "config"]
    assert str(trained / "checkpoints" / "best.ckpt") in parsed.text
    link = next(address for address in parsed.addresses if address.endswith("report.html"))
    assert (evaluated / link).resolve() == (trained / "report.html").resolve()


def test_several_evaluations_lead_to_each(trained: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("one", "two"):
        shutil.copytree(trained / "checkpoints", runs / name / "checkpoints")
    evaluate(composed("evaluate", f"run={runs}", f"run_dir={tmp_path / 'out'}", "what=[reconstructions]"))
    parsed = _Parsed(tmp_path / "out" / "report.html")
    assert {"one/report.html", "two/report.html"} <= set(parsed.addresses)
    assert (tmp_path / "out" / "one" / "latents.npz").is_file()


def test_the_sweep_ranks_its_jobs_and_leads_to_them(swept: Path) -> None:
    parsed = _Parsed(swept / "report.html")
    links = [address for address in parsed.addresses if address.endswith("report.html")]
    assert links == ["1/report.html", "2/report.html", "0/report.html"]  # the best first
    assert "python src/train.py -m model=mlp latent_dim=2,20,8,-1" in parsed.text
    assert "failed: latent_dim=-1: it must be a positive integer" in parsed.text


def test_a_training_that_goes_on_has_a_report_of_all_of_it(tmp_path: Path, tiny_data: list[str]) -> None:
    options = [f"run_dir={tmp_path}", *tiny_data, "callbacks=none"]
    train(composed("train", *options))
    before = _Parsed(tmp_path / "report.html").text
    train(composed("train", *options, "trainer.max_epochs=4", f"ckpt_path={tmp_path}"))
    after = _Parsed(tmp_path / "report.html").text
    assert "trained for 2 epochs" in before
    assert "trained for 4 epochs" in after
    assert f"This training resumed {tmp_path}" in after
    assert json.dumps([4, 8, 12, 16], separators=(",", ":")) in (tmp_path / "report.html").read_text()  # steps


def test_switched_off_there_is_none(tmp_path: Path, tiny_data: list[str]) -> None:
    train(composed("train", f"run_dir={tmp_path}", *tiny_data, "callbacks=none", "report=false"))
    assert (tmp_path / "metrics.json").is_file()
    assert not (tmp_path / "report.html").exists()


def test_a_report_that_cannot_be_made_fails_no_training(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no space left on the device")

    monkeypatch.setattr(report, "write", broken)
    monkeypatch.setattr(latent_space, "gather", broken)
    with caplog.at_level(logging.WARNING):
        figures = train(composed("train", f"run_dir={tmp_path}", *tiny_data))
    assert np.isfinite(figures["test/elbo"])
    said = [record.message for record in caplog.records if "no space left" in record.message]
    assert [line.partition(":")[0] for line in said] == ["latents.npz", "report.html"]
    assert not (tmp_path / "latents.npz").exists()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("metrics.csv", "There is no metrics.csv"),
        ("metrics.json", "this training has not ended"),
        ("latents.npz", "There is no latents.npz"),
        ("pictures/samples.png", None),
        ("pictures", "callbacks.pictures writes them"),
        ("about.json", None),
        ("config.yaml", "The command is not known"),
    ],
)
def test_what_is_missing_is_said(trained: Path, tmp_path: Path, name: str, line: str | None) -> None:
    shutil.copytree(trained, tmp_path / "run")
    gone = tmp_path / "run" / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    parsed = _Parsed(report.write(tmp_path / "run"))
    assert line is None or line in parsed.text
    assert set(parsed.sections) >= {"summary", "metrics", "latents"}


def test_what_is_damaged_is_left_out_and_the_rest_is_there(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for path in sorted((tmp_path / "run").rglob("*.*")):
        if path.is_file() and path.suffix in (".npz", ".json", ".csv", ".yaml", ".png", ".gif"):
            path.write_bytes(path.read_bytes()[:100] + b"\0\xff:\n: [")
    parsed = _Parsed(report.write(tmp_path / "run"))
    for line in ("Damaged, and left out: config.yaml, metrics.json, about.json.", "samples.png could not be read"):
        assert line in parsed.text
    assert "latent space: BadZipFile" in parsed.text


def test_an_empty_folder_has_a_report_too(tmp_path: Path) -> None:
    assert "so this page is short" in _Parsed(report.write(tmp_path)).text


def test_nothing_is_left_over_of_a_report_that_could_not_be_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "report.html").write_text("the one before")

    def full(*_: Any) -> None:
        raise OSError("full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="full"):
        report.write(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").read_text() == "the one before"
    assert not list((tmp_path / "run").glob(".report*"))


def test_json_stays_in_its_script() -> None:
    text = str(_json({HOSTILE: [HOSTILE, float("nan")]}))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {HOSTILE: [HOSTILE, None]}


def test_it_is_made_again_from_the_folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for name in ("report.html", "latents.npz"):
        (tmp_path / "run" / name).unlink()
    monkeypatch.setattr("sys.argv", ["vaelab.visualization.report", str(tmp_path / "run")])
    main()
    assert (tmp_path / "run" / "report.html").read_text() == (trained / "report.html").read_text()
    monkeypatch.setattr("sys.argv", ["vaelab.visualization.report", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: .* holds no run, no evaluation and no sweep: type a folder"):
        main()


# In a browser.

Open = Callable[..., Any]


def _drawn(page: Any, selector: str) -> str:
    return str(page.locator(selector).first.evaluate("canvas => canvas.toDataURL()"))


def test_curves_are_read_zoomed_scaled_and_switched(trained: Path, page: Open) -> None:
    opened = page(trained / "report.html")
    terms = opened.locator("#curves .panel")
    assert [terms.nth(i).get_attribute("data-term") for i in range(terms.count())] == ["elbo", "reconstruction", "kl"]
    readout, over = opened.locator("#curves .readout").first, opened.locator("#curves .u-over").first
    assert "last: step 30" in readout.inner_text()
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    opened.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    assert re.search(r"^step \d+, epoch [\d.]+\s+training -[\d.]+\s+validation -[\d.]+", readout.inner_text())
    reset = opened.locator("#curves .reset")
    assert reset.is_disabled()
    before = _drawn(opened, "#curves canvas")
    opened.mouse.down()
    opened.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
    opened.mouse.up()
    zoomed = _drawn(opened, "#curves canvas")
    assert zoomed != before
    assert reset.is_enabled()
    reset.click()
    assert reset.is_disabled()
    assert _drawn(opened, "#curves canvas") == before
    opened.locator("#curves select").select_option("1")
    assert _drawn(opened, "#curves canvas") != before
    opened.locator("#curves .chips button", has_text="KL").click()
    assert terms.count() == 2
    opened.locator("#curves .chips button", has_text="validation").click()
    assert "validation" not in readout.inner_text()


def test_a_point_of_latent_space_shows_its_image(trained: Path, page: Open) -> None:
    opened = page(trained / "report.html")
    canvas, tip = opened.locator("#latents canvas").first, opened.locator("#latents .tip").first
    canvas.scroll_into_view_if_needed()
    assert not tip.is_visible()
    box = canvas.bounding_box()
    for i in range(40):
        opened.mouse.move(box["x"] + (0.2 + 0.015 * i) * box["width"], box["y"] + (0.2 + 0.015 * i) * box["height"])
        if tip.is_visible():
            break
    assert re.search(r"test image \d+, class \d", tip.inner_text())
    number = int(re.search(r"test image (\d+)", tip.inner_text())[1])  # type: ignore[index]
    shown = tip.locator("canvas").first.evaluate(
        "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 === 0)"
    )
    arrays = latent_space.read(trained / "latents.npz")
    sheet = np.asarray(Image.open(io.BytesIO(arrays["images"].tobytes())).convert("L"))
    row, column = divmod(list(arrays["numbers"]).index(number), int(arrays["columns"]))
    assert np.array_equal(np.array(shown).reshape(28, 28), sheet[28 * row :, 28 * column :][:28, :28])
    before = _drawn(opened, "#latents canvas")
    for i, name in enumerate(("z1", "thickness"), 1):
        select = opened.locator("#latents select").nth(i)
        select.select_option(label=name)
        assert _drawn(opened, "#latents canvas") != before
    reset = opened.locator("#latents .reset")
    opened.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    opened.mouse.down()
    opened.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.7 * box["height"], steps=4)
    opened.mouse.up()
    assert reset.is_enabled()
    reset.click()
    assert reset.is_disabled()
    assert opened.locator("#latents [data-plot=bars] rect").count() == 3
    bars = opened.locator("#errors [data-plot=histogram] rect")
    assert 0 < bars.count() <= 48
    bars.first.hover()
    assert "images (80): " in opened.locator("#errors .tip").inner_text()


def test_a_finger_does_as_a_mouse(trained: Path, page: Open) -> None:
    opened = page(trained / "report.html", 390, has_touch=True, is_mobile=True, color_scheme="dark")
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    canvas, tip = opened.locator("#latents canvas").first, opened.locator("#latents .tip").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for i in range(40):
        opened.touchscreen.tap(
            box["x"] + (0.2 + 0.015 * i) * box["width"], box["y"] + (0.2 + 0.015 * i) * box["height"]
        )
        if tip.is_visible():
            break
    assert "test image" in tip.inner_text()
    over = opened.locator("#curves .u-over").first
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    opened.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    assert "last" not in opened.locator("#curves .readout").first.inner_text()
    opened.locator("#samples .picture").first.tap()
    assert opened.locator("dialog img").is_visible()


def test_a_sweep_is_sorted_by_any_column(swept: Path, page: Open) -> None:
    opened = page(swept / "report.html")
    names = opened.locator("#metrics th").all_inner_texts()

    def column(name: str) -> list[str]:
        place = next(i for i, text in enumerate(names) if text.strip().startswith(name)) + 1
        return [text.strip() for text in opened.locator(f"#metrics td:nth-child({place})").all_inner_texts()]

    assert column("latent_dim") == ["20", "8", "2", "-1"]
    heading = opened.locator("#metrics th button", has_text="latent_dim")
    heading.click()
    assert column("latent_dim") == ["-1", "2", "8", "20"]
    heading.click()
    assert column("latent_dim") == ["20", "8", "2", "-1"]
    opened.locator("#metrics th button", has_text="test/elbo").click()
    assert column("test/elbo") == ["-121.50", "-101.50", "-96.50", ""]  # what is empty stays last
    assert opened.locator("#curves .chips button", has_text="latent_dim=20").count() == 1
    opened.locator("#metrics td a").first.click()
    assert opened.url.endswith("/report.html")
    assert opened.locator("h1").inner_text().startswith("digits")


def test_hostile_names_stay_names(trained: Path, tmp_path: Path, page: Open) -> None:
    folder = tmp_path / HOSTILE.replace("/", "_")
    shutil.copytree(trained, folder)
    config = OmegaConf.load(folder / "config.yaml")
    config.overrides = [f"logger.wandb.name={HOSTILE}"]
    config.choices = {"data": HOSTILE, "model": HOSTILE}
    OmegaConf.save(config, folder / "config.yaml")
    figures = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**figures, f"test/{HOSTILE}": 1.5, "tested": HOSTILE}))
    lines = (folder / "metrics.csv").read_text().splitlines()
    name = HOSTILE.replace('"', '""')
    (folder / "metrics.csv").write_text(
        "\n".join([f'{lines[0]},"val/{name}"', *(f"{line},{i}" for i, line in enumerate(lines[1:]))])
    )
    arrays = latent_space.read(folder / "latents.npz")
    arrays["classes"] = np.array([HOSTILE, *arrays["classes"][1:]], dtype=str)
    np.savez(folder / "latents.npz", **arrays)  # type: ignore[arg-type]
    shutil.copy(folder / "pictures" / "samples.png", folder / "pictures" / f"{HOSTILE.replace('/', '_')}.png")
    (folder / "evaluation.json").write_text(
        json.dumps({"protocol": {}, "metrics": {f"a/{HOSTILE}": {"value": 1.0, "note": HOSTILE}}, "remarks": [HOSTILE]})
    )
    parsed = _Parsed(report.write(folder))
    assert parsed.elements.count("script") == 4 + 1  # the charts' data, and the page's own
    opened = page(folder / "report.html")
    assert opened.title().startswith(HOSTILE)
    assert HOSTILE in opened.locator("h1").inner_text()
    assert opened.locator("#latents .legend button", has_text="</script>").count() == 1
    assert opened.locator("img[src=x]").count() == 0
    assert opened.locator("#curves .panel").count() == 4
