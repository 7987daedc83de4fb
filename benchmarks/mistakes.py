"""Runs all wrong command lines of the tests, and fresh random ones, and writes the answers.

    make mistakes
    make mistakes ARGS="--count 1000 --seed 7"

Writes ``benchmarks/results/mistakes.md``. The answer to a wrong line must be one line, with an exit code that is not 0.
Random lines must not end in a traceback, and none may train something else than was typed. What an answer proposes is
typed as well: see ``tests/random_lines.py``.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import NamedTuple

from runs import RESULTS, ROOT

sys.path.insert(0, str(ROOT))

from tests.random_lines import SMALL, Line, fault, random_lines, wrong_advice
from tests.wrong_lines import CONFIGURATION, VALUES

import vaelab  # noqa: F401  (repairs the import of torchvision)

_MEMORY = 14 * 2**30  # bytes of address space for each command: random sizes may ask for any


class Answer(NamedTuple):
    """The answer to a wrong command line.

    Attributes:
        typed: the command line.
        lines: of the answer.
        code: the exit code.
        advice: what is wrong with its advice; ``None`` for nothing.
    """

    typed: str
    lines: list[str]
    code: int
    advice: str | None

    @property
    def is_right(self) -> bool:
        """Whether it is one line, whose advice can be typed."""
        return self.code != 0 and len(self.lines) == 1 and self.lines[0].startswith("error: ") and self.advice is None


def _answer(case: tuple[str, str, list[str]]) -> Answer:
    """Types a wrong command line, and what its answer proposes for a training."""
    name, typed, _ = case
    with tempfile.TemporaryDirectory() as folder:
        kind = "sweep" if typed.startswith("-m") else "run"
        where = [] if "--" in typed or "hydra." in typed else [f"hydra.{kind}.dir={folder}/run"]
        done = subprocess.run(
            ["timeout", "60", sys.executable, str(ROOT / "src" / f"{name}.py"), *typed.split(), *where],
            cwd=ROOT,
            env={key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"},
            capture_output=True,
            text=True,
        )
        advice = None
        if name == "train" and case in VALUES:
            advice = wrong_advice(Line(name, SMALL, typed.split()), done.stderr.strip(), Path(folder))
    lines = done.stderr.replace(str(ROOT), ".").replace(folder, "<folder>").strip().splitlines()
    return Answer(f"{name}.py {typed}".removeprefix("train.py "), lines, done.returncode, advice)


def _faults(count: int, seed: int) -> Iterator[tuple[Line, str | None]]:
    """Random command lines, and what is wrong with their answers."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with tempfile.TemporaryDirectory() as top, ThreadPoolExecutor(os.cpu_count()) as pool:
        run = Path(top) / "trained"
        trained = Line("train", SMALL).run(run)
        assert trained.returncode == 0, trained.stderr
        lines = list(random_lines(count, run, seed))

        def tried(number: int) -> str | None:
            folder = Path(top) / str(number)
            folder.mkdir()
            return fault(lines[number], folder)

        yield from zip(lines, pool.map(tried, range(count)), strict=True)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def main() -> int:
    """Runs them all; the exit code is 1 if an answer is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="random command lines")
    parser.add_argument("--seed", type=int, default=None, help="of the random command lines; a new one each time")
    options = parser.parse_args()
    seed = random.randrange(2**31) if options.seed is None else options.seed
    faults = []
    for number, (line, wrong) in enumerate(_faults(options.count, seed), 1):
        if wrong:
            faults.append(f"| `{_cell(str(line))}` | {_cell(wrong)} |")
            print(f"{line}\n    {wrong}", flush=True)
        if number % 50 == 0:
            print(f"{number} of {options.count} random lines, {len(faults)} faults (seed {seed})", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = list(pool.map(_answer, [*CONFIGURATION, *VALUES]))
    rows = [f"| `{_cell(a.typed)}` | {_cell(' ⏎ '.join(a.lines))} | {a.code} |" for a in answers]
    wrong_answers = [answer for answer in answers if not answer.is_right]
    for answer in wrong_answers:
        shown = answer.advice or "\n".join(answer.lines)[-1500:]
        print(f"{answer.typed}: {answer.code}\n{shown}", flush=True)
    text = [
        "# Wrong command lines",
        "",
        f"Written by `make mistakes` on {date.today()}: {len(rows)} command lines; {len(rows) - len(wrong_answers)} "
        f"of them have an answer of one line. Of {options.count} random ones (seed {seed}), "
        f"{options.count - len(faults)} did what was typed or ended in one line whose proposal could be typed.",
        "",
        *(["| random, after `python src/` | what is wrong |", "|---|---|", *faults, ""] if faults else []),
        "| typed, after `python src/` | answer | exit code |",
        "|---|---|---|",
        *rows,
    ]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "mistakes.md").write_text("\n".join(text) + "\n")
    return 1 if wrong_answers or faults else 0


if __name__ == "__main__":
    sys.exit(main())
