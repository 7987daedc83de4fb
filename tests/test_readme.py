"""Every command in the README and in the pages of docs/ works, on small data and for a short time."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

import vaelab
from tests.conftest import ROOT, composed
from tests.files import write_mnist, write_pictures
from tests.pages import ADDING, READ, blocks, prose, typed
from vaelab.commands.cli import _first_job
from vaelab.commands.evaluate import evaluate
from vaelab.commands.explore import explore
from vaelab.commands.generate import generate
from vaelab.commands.report import main as make_report
from vaelab.commands.train import train

COMMANDS_OF = [page for page in READ if page not in ADDING]  # those pages have a test of their own, test_adding.py
_COMMAND = r"(?:python|make|pip|wandb|vaelab) .+"
# What is typed beside a training's own settings to make it small; what is typed in the documents comes first.
SMALL = {
    "data.limit": "60",
    "data.validation": "20",
    "trainer.max_epochs": "1",
    "callbacks": "none",
    "logger": "csv",
    "report": "false",
    "accelerator": "cpu",
}
DRIVEN_BY_THE_COMMAND_LINE = ("--help", "--cfg")  # commands/test_cli.py


def _commands() -> list[str]:
    found = []
    for page in COMMANDS_OF:
        found += [line for line in typed(page) if re.fullmatch(_COMMAND, line)]
        found += re.findall(rf"`({_COMMAND.replace('.+', '[^`]+')})`", prose(page))
    return sorted({command for command in found if "..." not in command})


COMMANDS = _commands()


def _is_run_here(command: str) -> bool:
    return command.startswith("python src/") and not set(DRIVEN_BY_THE_COMMAND_LINE) & set(command.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> Path:
    """A folder with a run, small data sets and a picture."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(folder / "data" / name / "raw", 60)
    write_pictures(folder / "pictures")
    Image.new("RGB", (40, 30), "grey").save(folder / "mine.jpg")
    settings = ["data=mnist", "data.binarize=dynamic", "model=mlp", "latent_dim=2", *_small({})]
    train(composed("train", *settings, f"data.source.data_dir={folder / 'data'}", f"run_dir={folder / 'run'}"))
    return folder


def _small(overridden: dict[str, str]) -> list[str]:
    return [f"{key}={overridden.get(key, value)}" for key, value in SMALL.items()]


def _train(place: Path, out: Path, overrides: list[str]) -> None:
    jobs = [override for override in overrides if not override.startswith("hydra/")]
    for option in set(overrides) - set(jobs):
        group, _, name = option.partition("=")
        assert (ROOT / "configs" / group / f"{name}.yaml").is_file()
    jobs = [override for override in jobs if not override.startswith("hydra.")]
    overridden = dict(override.split("=", 1) for override in _first_job(jobs))
    run = out / "run"
    if "ckpt_path" in overridden:
        run = shutil.copytree(place / "run", run)
        kept = [*("data=mnist", "data.binarize=dynamic", "model=mlp", "latent_dim=2"), *_small({})]
        settings = [*kept, f"ckpt_path={run}", "trainer.max_epochs=2"]
    else:
        keep_small = {"trainer.max_epochs": "1", "accelerator": "cpu"}
        settings = [*(f"{k}={v}" for k, v in overridden.items() if k not in SMALL), *_small(overridden | keep_small)]
        if overridden.get("data") == "image_folder":
            settings += [f"data.source.cache_dir={out}", "data.validation=5"]
    figures = train(composed("train", *settings, f"run_dir={run}"))
    assert figures["steps"] > 0


def _evaluate(place: Path, out: Path, overrides: list[str]) -> None:
    if not any(override.startswith("what=") for override in overrides):
        overrides = [*overrides, "what=[likelihood,scores]"]
    overrides = [o.replace("likelihood.samples=5000", "likelihood.samples=20") for o in overrides]
    found = evaluate(composed("evaluate", *overrides, f"run_dir={out}", "scores.samples=2"))
    assert found


def _calls(task: Callable[[Any], Any], name: str, *options: str) -> Callable[[Path, Path, list[str]], None]:
    def call(place: Path, out: Path, overrides: list[str]) -> None:
        assert task(composed(name, *overrides, f"run_dir={out}", *options))

    return call


def _export(place: Path, out: Path, overrides: list[str]) -> None:
    pytest.importorskip("onnxruntime", reason='needs what exports: pip install -e ".[export]"')
    from vaelab.commands.export import export

    assert export(composed("export", *overrides, f"run_dir={out}"))


def _dashboard(place: Path, out: Path, overrides: list[str]) -> None:
    pytest.importorskip("wandb_workspaces", reason='needs what builds dashboards: pip install -e ".[dashboard]"')
    from vaelab.commands.dashboard import dashboard

    dashboard(composed("dashboard", *overrides, f"run_dir={out}"))


SCRIPTS: dict[str, Callable[[Path, Path, list[str]], None]] = {
    "train": _train,
    "evaluate": _evaluate,
    "generate": _calls(generate, "generate"),
    "explore": _calls(explore, "explore", "open=false", "images=20", "draws=20"),
    "export": _export,
    "dashboard": _dashboard,
}


@pytest.mark.parametrize("command", [command for command in COMMANDS if _is_run_here(command)])
def test_a_script(command: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(place / "data"))
    monkeypatch.chdir(place)
    known = re.sub(r"(?:latest|<[^>]*>|logs/train/multiruns/<time>|logs/train/\w+)", str(place / "run"), command)
    script, *overrides = shlex.split(known)[1:]
    SCRIPTS[Path(script).stem](place, tmp_path, [override for override in overrides if override != "-m"])
    assert any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("python src/")])
def test_another_command(command: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\[(\w+)\]", words[-1])) <= set(extras)
    elif words[0] == "wandb":
        from wandb.cli.cli import cli

        assert words[1] in cli.commands
    else:
        assert words[:3] == ["python", "-m", "vaelab.commands.report"]
        shutil.copytree(place / "run", tmp_path / "run")
        monkeypatch.setattr("sys.argv", ["report", str(tmp_path / "run")])
        make_report()
        assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("page", COMMANDS_OF, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page(page: Path, place: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            exec(block.text.replace("logs/train/latest", str(place / "run")), {})


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts and MkDocs make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("page", [*READ, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", prose(page)):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in _anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize(
    "wanted", ["docs/adding/likelihood.md", "docs/quickstart.md#where-is-each-setting", "docs/troubleshooting.md"]
)
def test_what_newcomers_look_for_is_one_click_from_the_readme(wanted: str) -> None:
    assert f"({wanted})" in (ROOT / "README.md").read_text()


QUOTED = [
    "not finite, most likely ",
    "the step before has ruined the weights: the learning rate is too high",
    "type a lower optimizer.lr, trainer.gradient_clip_val=1, or module.bad_numbers=skip",
    "already: type e.g. trainer.max_",
    "was trained with other settings and can be resumed only with those: type",
    "already holds a run: resume it with",
    "is whole: type its path instead",
    "epochs: type a larger callbacks.early_stopping.patience",
    "another training is writing into",
    "no run has finished an epoch yet",
    "the decoder's outputs are all between 0 and 1, as if it ended in a sigmoid",
    "set DATA_DIR to the folder that holds it (for a trained model, type data_dir=<this folder>), or train with",
    "there is no closed form of the divergence between the posterior",
    "W&B is to run online but has no key",
]


@pytest.mark.parametrize("message", QUOTED)
def test_troubleshooting_quotes_what_is_printed(message: str) -> None:
    source = "".join(path.read_text() for path in (ROOT / "src" / "vaelab").rglob("*.py"))
    assert message in re.sub(r'"\s*\n\s*f?"', "", source)  # strings that are broken into several lines, made whole
    assert message in " ".join((ROOT / "docs" / "troubleshooting.md").read_text().split())


def test_the_citation_is_of_this_version() -> None:
    citation = OmegaConf.load(ROOT / "CITATION.cff")
    assert citation.version == vaelab.__version__
    assert f"## {vaelab.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 140
