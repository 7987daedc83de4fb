"""The pages in docs/adding are right: what they say to add is added to a copy of the project, tested and trained."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests import warm
from tests.conftest import ROOT
from tests.pages import ADDING, blocks, typed

PARTS = {"network", "likelihood", "prior", "posterior", "objective", "data", "measure"}
SMALL = [
    *("model=mlp", "data.limit=60", "data.validation=20", "trainer.max_steps=2", "trainer.accelerator=cpu"),
    *("callbacks=none", "logger=none", "report=false"),
]
# In the copy: the page's commands, on small data. The checkpoint must load again, since it names the new class.
TRAINS = """
from pathlib import Path

import vaelab
from tests.conftest import composed
from vaelab.commands.evaluate import evaluate
from vaelab.commands.train import train


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(composed("train", *TRAIN, f"run_dir={run}"))["steps"] == 2
    assert vaelab.load(run).sample(2).shape[0] == 2
    for measure in MEASURES:
        found = evaluate(composed("evaluate", f"what={measure}", f"run={run}", f"run_dir={tmp_path / 'evaluation'}"))
        assert any(name.startswith(f"{measure}/") for name in found["metrics"])
"""


def _add(language: str, text: str, project: Path) -> str:
    """Does to a project what a block says, and returns the path of its file."""
    first, _, text = text.partition("\n")
    match = re.fullmatch(r"# (at the end of |in |)(\S+/\S+\.\w+)", first)
    assert match, f"a block must begin with its file, such as '# configs/loss/x.yaml', not with {first!r}"
    file = project / match[2]
    if language == "diff":
        old, new = ("\n".join(line[1:] for line in text.splitlines() if line.startswith(sign)) for sign in "-+")
        assert file.read_text().count(old) == 1, f"{match[2]} does not hold once: {old}"
        file.write_text(file.read_text().replace(old, new))
    elif match[1]:
        file.write_text(file.read_text() + text)
    else:
        assert not file.exists(), f"{match[2]} exists already"
        assert file.parent.is_dir(), f"{match[2]}: this folder does not exist"
        file.write_text(text)
    return match[2]


def _overrides(page: Path, script: str) -> list[str]:
    """What the page's one command of a script overrides; nothing where it has none."""
    commands = [shlex.split(line) for line in typed(page) if line.startswith(f"python src/{script}.py ")]
    assert len(commands) <= 1
    return commands[0][2:] if commands else []


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's code, settings and tests."""
    folder = tmp_path / "project"
    skipped = shutil.ignore_patterns("__pycache__", "old_runs", "*.egg-info")
    for name in ("src", "configs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize("page", ADDING, ids=lambda page: page.stem)
def test_what_a_page_adds_is_tested_and_trained(page: Path, project: Path) -> None:
    paths = [_add(*block, project) for block in blocks(page) if block.language in ("python", "yaml", "diff")]
    tests = [path for path in paths if path.startswith("tests/")]
    assert tests
    overrides, measured = _overrides(page, "train"), _overrides(page, "evaluate")
    assert overrides or measured
    settings = {override.partition("=")[0]: override for override in [*SMALL, *overrides]}
    measures = [override.removeprefix("what=") for override in measured if override.startswith("what=")]
    lists = f"TRAIN = {[*settings.values()]!r}\nMEASURES = {measures!r}\n"
    (project / "tests" / "test_the_page.py").write_text(lists + TRAINS)
    ended = warm.run(
        ["-m", "pytest", "-q", "--assert=plain", "-p", "no:cacheprovider", *tests, "tests/test_the_page.py"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-2000:]


def test_every_part_has_its_page() -> None:
    assert {page.stem for page in ADDING} == PARTS
