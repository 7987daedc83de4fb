"""Every command that the README and its companions give is one that works, on small data and for a short time."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import ROOT, composed
from tests.files import write_mnist, write_pictures
from vaelab.commands.cli import _first_job
from vaelab.commands.evaluate import evaluate
from vaelab.commands.explore import explore
from vaelab.commands.generate import generate
from vaelab.commands.report import main as make_report
from vaelab.commands.train import train

PAGES = ["README.md", "CONTRIBUTING.md", "docs/choices.md"]
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
DRIVEN_BY_THE_COMMAND_LINE = ("--help", "--cfg")  # test_cli.py


def _commands() -> list[str]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            found += [line for line in block.splitlines() if re.fullmatch(_COMMAND, line)]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        found += re.findall(rf"`({_COMMAND.replace('.+', '[^`]+')})`", prose)
    return sorted({re.sub(r"\s+#.*", "", command).strip() for command in found if "..." not in command})


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


def _small(typed: dict[str, str]) -> list[str]:
    return [f"{key}={typed.get(key, value)}" for key, value in SMALL.items()]


def _train(place: Path, out: Path, overrides: list[str]) -> None:
    jobs = [override for override in overrides if not override.startswith("hydra/")]
    for option in set(overrides) - set(jobs):
        group, _, name = option.partition("=")
        assert (ROOT / "configs" / group / f"{name}.yaml").is_file()
    jobs = [override for override in jobs if not override.startswith("hydra.")]
    typed = dict(override.split("=", 1) for override in _first_job(jobs))
    run = out / "run"
    if "ckpt_path" in typed:
        run = shutil.copytree(place / "run", run)
        kept = [*("data=mnist", "data.binarize=dynamic", "model=mlp", "latent_dim=2"), *_small({})]
        settings = [*kept, f"ckpt_path={run}", "trainer.max_epochs=2"]
    else:
        keep_small = {"trainer.max_epochs": "1", "accelerator": "cpu"}
        settings = [*(f"{k}={v}" for k, v in typed.items() if k not in SMALL), *_small(typed | keep_small)]
        if typed.get("data") == "image_folder":
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
        assert words[:3] == ["python", "-m", "vaelab.visualization.report"]
        shutil.copytree(place / "run", tmp_path / "run")
        monkeypatch.setattr("sys.argv", ["report", str(tmp_path / "run")])
        make_report()
        assert (tmp_path / "run" / "report.html").is_file()


def test_every_link_leads_somewhere() -> None:
    for page in [*PAGES, "docs/scaling.md", "docs/ray.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"
