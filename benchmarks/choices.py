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
from datetime import date
from pathlib import Path

import torch
from runs import RESULTS, ROOT, finish, finished

RUNS = ROOT / "logs" / "choices"
BASE = ["data=mnist", "data.binarize=dynamic", "model=conv", "loss=bce", "objective=elbo_sampled", "latent_dim=20"]
GREY = ["data.binarize=none"]  # what a density of grey images is a likelihood of
# What else an option needs; None stands for every other option of the group.
EXTRA: dict[str, dict[str | None, list[str]]] = {"loss": {"bce": [], None: GREY}}
GROUPS = ("model", "loss", "prior", "posterior", "objective", "conditional")


def options(group: str) -> list[str]:
    """The options of a group that are a choice of their own, rather than a document's."""
    if group == "conditional":
        return ["true"]
    names = sorted(path.stem for path in (ROOT / "configs" / group).glob("*.yaml"))
    return [name for name in names if not name.startswith("conv_")]


def overrides(group: str, option: str) -> list[str]:
    """What to type for an option, beside what is always typed."""
    extra = EXTRA.get(group, {})
    return [f"{group}={option}", *extra.get(option, extra.get(None, []))]


def table(epochs: int) -> str:
    """The results as a Markdown table."""
    lines = [
        "# Every choice, all else equal",
        "",
        f"Written by `make choices` on {date.today()}: torch {torch.__version__}, MNIST, {epochs} epochs, seed 0. Each "
        f"row is `python src/train.py {' '.join(BASE)} trainer.max_epochs={epochs}` with one thing changed. Test "
        "figures of 10,000 images, summed over pixels and latents, averaged over images; the ELBO of one likelihood "
        "cannot be compared with that of another one. The best epoch on validation images is tested.",
        "",
        "| changed | ELBO | reconstruction | KL | unit | parameters | images/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in GROUPS:
        for option in options(group):
            folder = RUNS / f"{group}={option}"
            if not finished(folder):
                continue
            figures = json.loads((folder / "metrics.json").read_text())
            if figures["epochs"] != epochs:
                continue
            terms = " | ".join(f"{figures[f'test/{name}']:,.2f}" for name in ("elbo", "reconstruction", "kl"))
            typed = " ".join(overrides(group, option))
            lines.append(
                f"| `{typed}` | {terms} | {figures['unit']} | {figures['parameters']:,} "
                f"| {figures['images_per_second']:,.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs what was asked for; the exit code says whether all of it succeeded."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("groups", nargs="*", default=GROUPS, help=f"some of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--epochs", type=int, default=5, help="of each training (default: 5)")
    chosen = parser.parse_args()
    unknown = set(chosen.groups) - set(GROUPS)
    if unknown or chosen.epochs < 1:
        parser.error(f"no group {', '.join(unknown)}" if unknown else "--epochs must be at least 1")
    wanted = [(group, option) for group in chosen.groups for option in options(group)]
    failed = []
    started = time.monotonic()
    path = Path(RESULTS) / "choices.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, (group, option) in enumerate(wanted, 1):
        minutes = (time.monotonic() - started) / 60
        print(f"[{number} of {len(wanted)}, after {minutes:.0f} min] {group}={option}", flush=True)
        typed = [*BASE, *overrides(group, option), f"trainer.max_epochs={chosen.epochs}", "logger=csv"]
        if not finish(RUNS / f"{group}={option}", typed):
            failed.append(f"{group}={option}")
        path.write_text(table(chosen.epochs))
    print(path.read_text())
    for what in failed:
        print(f"failed: {what}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
