"""Runs all wrong command lines of the tests, and writes their answers.

    make mistakes

Writes ``benchmarks/results/mistakes.md``. Each answer must be one line, with an exit code that is not 0.
"""

import os
import subprocess
import sys
import tempfile
from datetime import date

from runs import RESULTS, ROOT

sys.path.insert(0, str(ROOT))

from tests.wrong_lines import CONFIGURATION, VALUES


def main() -> int:
    """Runs them all; the exit code is 1 if an answer is not one line."""
    rows, bad = [], 0
    for number, (name, typed, _) in enumerate([*CONFIGURATION, *VALUES]):
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
        lines = done.stderr.strip().splitlines()
        right = done.returncode != 0 and len(lines) == 1 and lines[0].startswith("error: ")
        bad += not right
        answer = " ⏎ ".join(lines).replace(str(ROOT), ".").replace(folder, "<folder>").replace("|", "\\|")
        rows.append(f"| `{name}.py {typed}` | {answer} | {done.returncode} |".replace("`train.py `", "`train.py`"))
        if not right:
            print(f"{number}: {name} {typed}: {done.returncode}\n{done.stderr[-1500:]}", flush=True)
    text = [
        "# Wrong command lines",
        "",
        f"Written by `make mistakes` on {date.today()}: {len(rows)} command lines; {len(rows) - bad} of them "
        "have an answer of one line.",
        "",
        "| typed, after `python src/` | answer | exit code |",
        "|---|---|---|",
        *rows,
    ]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "mistakes.md").write_text("\n".join(text) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
