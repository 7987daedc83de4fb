"""Trains MNIST once per option of every choice, all else equal, and puts their figures side by side.

    make choices                                   all of them: half an hour on two cores
    make choices ARGS="--epochs 20 prior posterior"    some groups, longer

A run that is complete is not repeated and one that was interrupted goes on where it stopped. After every run the table
in ``benchmarks/results/choices.md`` is brought up to date.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import date

import torch
from runs import RESULTS, ROOT, finish, finished

RUNS = ROOT / "logs" / "choices"
BASE = {
    "data": "mnist",
    "data.binarize": "dynamic",
    "model": "conv",
    "loss": "bce",
    "prior": "standard_normal",
    "posterior": "diagonal_gaussian",
    "objective": "elbo_sampled",
    "latent_dim": "20",
}
GROUPS = ("model", "loss", "prior", "posterior", "objective", "conditional", "accelerator", "seed")
# Of these groups no files are tried, but these: the seeds say what a difference means.
GIVEN = {"conditional": ["true"], "accelerator": ["cpu_bf16"], "seed": ["1", "2"]}


def options(group: str) -> list[str]:
    """The options of a group but for the one that everything is compared with, and those of a single document."""
    if group in GIVEN:
        return GIVEN[group]
    names = sorted(path.stem for path in (ROOT / "configs" / group).glob("*.yaml"))
    return [name for name in names if not name.startswith("conv_") and BASE[group] != name]


def typed(changes: dict[str, str]) -> list[str]:
    """What to type for these changes."""
    return [f"{key}={value}" for key, value in changes.items()]


def changes_of(group: str, option: str) -> dict[str, str]:
    """What differs from the common settings."""
    changes = {group: option}
    if group == "loss":
        changes["data.binarize"] = "none"  # those other than Bernoulli's are of grey images
    if option == "capacity":
        changes["module.objective.warmup.steps"] = "1000"  # else it ends long after a short training
    if option == "dreg":
        changes["module.objective.samples"] = "5"  # as many as iwae has
    return changes


def table(epochs: int) -> str:
    """The results as a Markdown table."""
    lines = [
        "# Every choice, all else equal",
        "",
        f"Written by `make choices` on {date.today()}: torch {torch.__version__}, MNIST, {epochs} epochs, seed 0. The "
        f"first row is `python src/train.py {' '.join(typed(BASE))} trainer.max_epochs={epochs}`; in each of the "
        "others one thing is changed. Test figures of 10,000 images, summed over pixels and latents, averaged over "
        "images; the ELBO of one likelihood cannot be compared with that of another one. Densities of 8-bit images "
        "have no upper bound where pixels are always exactly black, as MNIST's margins: continuous_bernoulli and "
        "gaussian_per_pixel gain their nats there, and reconstruct worse for it. The epoch that is tested is the best "
        "on validation images, by the figure that the objective "
        "names.",
        "",
        "| changed | ELBO | reconstruction | KL | unit | parameters |",
        "|---|---|---|---|---|---|",
    ]
    for name, changes in wanted(GROUPS):
        folder = RUNS / name
        if not finished(folder):
            continue
        figures = json.loads((folder / "metrics.json").read_text())
        if figures["epochs"] != epochs:
            continue
        terms = " | ".join(f"{figures[f'test/{term}']:,.2f}" for term in ("elbo", "reconstruction", "kl"))
        label = f"`{' '.join(typed(changes))}`" if changes else "nothing"
        lines.append(f"| {label} | {terms} | {figures['unit']} | {figures['parameters']:,} |")
    return "\n".join(lines) + "\n"


def wanted(groups: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Names of runs, and what is changed in each: nothing in the first."""
    runs = [(f"{group}-{option}", changes_of(group, option)) for group in groups for option in options(group)]
    return [("nothing", {}), *runs]


def main() -> int:
    """Runs what was asked for; the exit code says whether all of it succeeded."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("groups", nargs="*", default=GROUPS, help=f"some of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--epochs", type=int, default=3, help="of each training (default: 3)")
    chosen = parser.parse_args()
    unknown = set(chosen.groups) - set(GROUPS)
    if unknown or chosen.epochs < 1:
        parser.error(f"no group {', '.join(unknown)}" if unknown else "--epochs must be at least 1")
    failed = []
    started = time.monotonic()
    path = RESULTS / "choices.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = wanted(chosen.groups)
    for number, (name, changes) in enumerate(runs, 1):
        minutes = (time.monotonic() - started) / 60
        print(f"[{number} of {len(runs)}, after {minutes:.0f} min] {name}", flush=True)
        settings = {**BASE, **changes, "trainer.max_epochs": str(chosen.epochs), "logger": "csv"}
        if not finish(RUNS / name, typed(settings)):
            failed.append(name)
        path.write_text(table(chosen.epochs))
    print(path.read_text())
    for what in failed:
        print(f"failed: {what}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
