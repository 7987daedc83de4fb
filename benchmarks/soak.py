"""Trains, evaluates and draws repeatedly in one process, and measures memory, files, threads and processes.

    make soak                     20 rounds
    make soak ARGS="--rounds 5"

Writes ``benchmarks/results/soak.md``. After the last round, memory, open files, threads and processes must be the same
as after the first rounds, which fill caches.
"""

import argparse
import contextlib
import gc
import io
import os
import sys
import tempfile
from datetime import date
from pathlib import Path

from runs import RESULTS, ROOT

sys.path.insert(0, str(ROOT / "src"))

import torch
from hydra import compose, initialize_config_dir

import vaelab.commands.cli  # noqa: F401  (registers the resolvers of the configuration)
from vaelab.commands.evaluate import evaluate
from vaelab.commands.generate import generate
from vaelab.commands.train import train

_SETTLED = 5  # rounds after which nothing may grow
_ALLOWED = 24  # MiB, for fragmentation in the allocator


def composed(name: str, *overrides: str):  # type: ignore[no-untyped-def]
    """The configuration of a command."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(name, overrides=["~hydra", *overrides])


def one_round(folder: Path) -> None:
    """Trains with images and W&B, evaluates the model, and draws its images."""
    run = f"run={folder}"
    small = ("model=conv", "data.limit=300", "trainer.max_epochs=2", "data.binarize=dynamic", "callbacks=gallery")
    train(composed("train", f"run_dir={folder}", *small, "logger=many", "latent_dim=2"))
    measures = ("what=[likelihood,latents,reconstructions,scores]", "likelihood.samples=10", "likelihood.limit=100")
    evaluate(composed("evaluate", run, f"run_dir={folder / 'evaluation'}", *measures, "scores.limit=100"))
    generate(composed("generate", run, f"run_dir={folder / 'pictures'}"))


def left_over() -> tuple[float, int, int, int]:
    """Resident memory in MiB, open files, threads, child processes."""
    gc.collect()
    process = Path("/proc/self")
    memory = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    tasks = list((process / "task").iterdir())
    children = sum(len((task / "children").read_text().split()) for task in tasks)
    return memory, len(list((process / "fd").iterdir())), len(tasks), children


def main() -> int:
    """Runs the rounds; the exit code is 1 if something grows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20, help="how many (default: 20)")
    options = parser.parse_args()
    os.environ["WANDB_MODE"] = "offline"
    rows = []
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            one_round(Path(folder))
        rows.append(left_over())
        print(f"round {number}: {rows[-1][0]:.0f} MiB, %d files, %d threads, %d processes" % rows[-1][1:], flush=True)
    first, last = rows[min(_SETTLED, len(rows)) - 1], rows[-1]
    flat = last[0] - first[0] <= _ALLOWED and all(b <= a for a, b in zip(first[1:], last[1:], strict=True))
    lines = [
        "# Repeated trainings in one process",
        "",
        f"Written by `make soak` on {date.today()}, torch {torch.__version__}, {torch.get_num_threads()} threads. A "
        "round is a training with all images and W&B, an evaluation, and the drawing of images. The values are "
        "measured after each round.",
        "",
        f"**{'Flat' if flat else 'Growing'} from round {min(_SETTLED, len(rows))} to round {len(rows)}.**",
        "",
        "| round | memory, MiB | open files | threads | child processes |",
        "|---|---|---|---|---|",
        *(f"| {i} | {row[0]:.0f} | {row[1]} | {row[2]} | {row[3]} |" for i, row in enumerate(rows, 1)),
    ]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "soak.md").write_text("\n".join(lines) + "\n")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
