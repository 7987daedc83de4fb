"""Random command lines: none ends in a traceback, and none trains something else than was typed."""

from pathlib import Path

import pytest

from tests.random_lines import COMMANDS, SMALL, VALUES, Line, fault, nonsense, proposals, random_lines


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("random") / "trained"
    done = Line("train", SMALL).run(run)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize("seed", range(6))
def test_a_random_line_is_followed_or_answered_in_one_line(seed: int, trained: Path, tmp_path: Path) -> None:
    """``make mistakes`` tries hundreds of fresh ones."""
    for number, line in enumerate(random_lines(4, trained, seed)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert fault(line, folder) is None, line


def test_lines_are_of_all_commands_and_fresh_for_another_seed(trained: Path) -> None:
    lines = list(random_lines(60, trained, 0))
    assert {line.command for line in lines} == {"train", *COMMANDS}
    assert [str(line) for line in lines[:20]] == [str(line) for line in random_lines(20, trained, 0)]
    assert [str(line) for line in lines[:20]] != [str(line) for line in random_lines(20, trained, 1)]
    assert len(set(VALUES)) == len(VALUES)


@pytest.mark.parametrize(
    ("answer", "proposed"),
    [
        ("error: a=0: it must be a positive integer; type e.g. a=20", ["a=20"]),
        ("error: a: it must be a list; type e.g. 'a.b=[1,2]'", ["a.b=[1,2]"]),
        ("error: no setting a; did you mean b=3 or c.b=3?", ["b=3"]),
        ("error: they differ: type a=1 b=2 as well", ["a=1", "b=2"]),
        ("error: run is missing; type run=latest or run=<a run folder>", ["run=latest"]),
        ("error: type data.classes=... as well", []),
        ("error: there is nothing to type", []),
    ],
)
def test_what_an_answer_proposes_is_read(answer: str, proposed: list[str]) -> None:
    assert proposals(answer) == proposed


@pytest.mark.parametrize(
    ("changes", "metrics", "wrong"),
    [
        (["latent_dim=3"], "{}", None),
        (["latent_dim=4"], "{}", "latent_dim=4 was typed, and latent_dim is 3"),
        (["trainer.limit_train_batches=2"], "{}", None),
        (["+trainer.max_time=abc"], "{}", "+trainer.max_time=abc was typed"),
        ([], '{"test/elbo": NaN}', "not finite: ['test/elbo']"),
    ],
)
def test_nonsense_is_seen(changes: list[str], metrics: str, wrong: str | None, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(metrics)
    (tmp_path / "config.yaml").write_text((trained / "config.yaml").read_text())
    found = nonsense(Line("train", SMALL, changes), tmp_path)
    assert found is None if wrong is None else found is not None and found.startswith(wrong)
