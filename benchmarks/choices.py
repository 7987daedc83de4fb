"""Trains MNIST once for each option of each choice, all else equal, and compares the metrics.

    make choices                                   all of them: half an hour on two cores
    make choices ARGS="--epochs 20 prior posterior"    some groups, longer

Complete runs are not repeated, and interrupted runs are resumed. After each run, the table in
``benchmarks/results/choices.md`` is updated.
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
# Options of groups without files. The seeds show how large random differences are.
GIVEN = {"conditional": ["true"], "accelerator": ["cpu_bf16"], "seed": ["1", "2"]}


def options(group: str) -> list[str]:
    """The options of a group, without the common one and without networks of a single document."""
    if group in GIVEN:
        return GIVEN[group]
    names = sorted(path.stem for path in (ROOT / "configs" / group).glob("*.yaml"))
    return [name for name in names if not name.startswith("conv_") and BASE[group] != name]


def typed(changes: dict[str, str]) -> list[str]:
    """The overrides for these changes."""
    return [f"{key}={value}" for key, value in changes.items()]


def changes_of(group: str, option: str) -> dict[str, str]:
    """The settings that differ from the common ones."""
    changes = {group: option}
    if group == "loss":
        changes["data.binarize"] = "none"  # all but Bernoulli are likelihoods of grey images
    if option == "capacity":
        changes["module.objective.warmup.steps"] = "1000"  # otherwise it lasts longer than a short training
    if option == "dreg":
        changes["module.objective.samples"] = "5"  # as many as in iwae
    return changes


def table(epochs: int) -> str:
    """The results as a Markdown table."""
    lines = [
        "# Every choice, all else equal",
        "",
        f"Written by `make choices` on {date.today()}: torch {torch.__version__}, MNIST, {epochs} epochs, seed 0. The "
        f"first row is `python src/train.py {' '.join(typed(BASE))} trainer.max_epochs={epochs}`. In each of the "
        "other rows one choice differs. Metrics are of 10,000 test images, summed over pixels and latents, and "
        "averaged over images. ELBOs of different likelihoods cannot be compared. Densities of 8-bit images have no "
        "upper bound where pixels are always exactly black, as in the margins of MNIST. There continuous_bernoulli and "
        "gaussian_per_pixel gain nats, and they reconstruct worse. The tested epoch is the best one on validation "
        "images, by the metric of the objective.",
        "",
        "| changed | ELBO | reconstruction | KL | unit | parameters |",
        "|---|---|---|---|---|---|",
    ]
    for name, changes in wanted(GROUPS):
        folder = RUNS / name
        if not finished(folder):
            continue
        metrics = json.loads((folder / "metrics.json").read_text())
        if metrics["epochs"] != epochs:
            continue
        terms = " | ".join(f"{metrics[f'test/{term}']:,.2f}" for term in ("elbo", "reconstruction", "kl"))
        label = f"`{' '.join(typed(changes))}`" if changes else "nothing"
        lines.append(f"| {label} | {terms} | {metrics['unit']} | {metrics['parameters']:,} |")
    return "\n".join(lines) + "\n"


def wanted(groups: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Names of runs and their changed settings; the first run has none."""
    runs = [(f"{group}-{option}", changes_of(group, option)) for group in groups for option in options(group)]
    return [("nothing", {}), *runs]


def main() -> int:
    """Runs the chosen trainings; the exit code is 1 if one has failed."""
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
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
