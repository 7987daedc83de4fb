"""Measures images per second in turns, for vaelab, a bare loop and other projects.

    make bench                                       everything; an hour on two cores, with nothing else running
    make bench ARGS="--rounds 1 'mlp, 128'"          some networks, once each
    make bench ARGS="--whole 50"                     the time of 50 epochs of MathWorks on MNIST, and its limit

Each measurement has its own process. In each round all programs take turns, and ratios are between values of one round,
because the speed of a machine changes with time. `pip install -e ".[bench]"` installs the other projects; missing ones
are left out and named.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from contestants import OURS
from runs import RESULTS, ROOT

from vaelab.runtime.hardware import processor

WORKER = Path(__file__).with_name("contestants.py")
NEEDED = {"pythae": "pythae", "Keras": "tensorflow"}
OTHERS = {
    "mlp, 128": ["PyTorch example", "pythae"],
    "MathWorks, 128": ["pythae"],
    "MathWorks, 512": [],
    "TensorFlow, 32": ["Keras"],
}
# Goals for the ratio of vaelab to the other, both in 32 bits, or only vaelab in 16.
GOALS = {
    ("mlp, 128", "bare loop", "32"): 0.85,
    ("MathWorks, 128", "bare loop", "32"): 0.95,
    ("MathWorks, 512", "bare loop", "32"): 0.95,
    ("TensorFlow, 32", "bare loop", "32"): 0.95,
    ("mlp, 128", "PyTorch example", "32"): 2.5,
    ("mlp, 128", "pythae", "32"): 2.5,
    ("MathWorks, 128", "pythae", "32"): 1.15,
    ("MathWorks, 128", "pythae", "16"): 2.0,
    ("TensorFlow, 32", "Keras", "32"): 1.0,
    ("TensorFlow, 32", "Keras", "16"): 1.3,
}


def measure(way: str, case: str, accelerator: str) -> dict[str, float]:
    """One measurement of one program, in its own process."""
    environment = {
        **os.environ,
        "STARTED": str(time.time()),
        "FORCE_COLOR": "1",  # a progress bar is drawn, as in a terminal
        "WANDB_MODE": "offline",
    }
    command = [sys.executable, str(WORKER), way, case, accelerator]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{way}, {case}, {accelerator} failed:\n{done.stderr}{done.stdout[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and the lowest and the highest of several values."""
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def report(found: dict[tuple[str, str, str], list[dict[str, float]]], machine: dict[tuple[str, str], Any]) -> str:
    """The results as Markdown."""
    missing = [way for way, package in NEEDED.items() if find_spec(package) is None]
    lines = [
        "# Training speed",
        "",
        f"Written by `make bench` on {date.today()}: torch {torch.__version__}, {_device()}; MNIST. "
        "Medians over rounds, with the lowest and the highest value. *vaelab* is `train.py` with its progress bar, "
        "W&B, checkpoints and metrics. The *bare loop* is the same network in a loop by hand, with the same images in "
        "memory: the upper limit. The *Trainer alone* is the loop of Lightning with the module and batches of vaelab, "
        "without logger, callbacks and progress bar. Other projects train the same network with the same batch size, "
        "in 32 bits.",
        "",
        "| network, batch | way | precision | images/s | first step, s | memory, MiB | of the peak | rounds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (case, way, accelerator), values in found.items():
        rates = [value["images_per_second"] for value in values]
        peak = machine[case, accelerator]
        share = statistics.median(rates) * peak["per_image"] / peak["peak"]
        lines.append(
            f"| {case} | {way} | {accelerator} | {spread(rates, 0)} "
            f"| {statistics.median(value['first_step'] for value in values):.1f} "
            f"| {statistics.median(value['memory'] for value in values):,.0f} | {share:.0%} | {len(values)} |"
        )
    lines += ["", *_ratios(found)]
    lines += ["", "Peak of matrix products: " + "; ".join(_peaks(machine)) + "."]
    if missing:
        lines += ["", f"Not installed and not measured: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _ratios(found: dict[tuple[str, str, str], list[dict[str, float]]]) -> list[str]:
    """The table of ratios, each with that of the bare loop, which is its limit."""

    def over(turn: tuple[str, str, str], other: tuple[str, str, str]) -> list[float]:
        pairs = zip(found.get(turn, []), found.get(other, []), strict=False)
        return [one["images_per_second"] / two["images_per_second"] for one, two in pairs]

    lines = [
        "The goals are those of this project. The last column has the ratio of the bare loop.",
        "",
        "| network, batch | ratio | precision | of images/s | goal | | bare loop |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, way, accelerator in found:
        if way != OURS[0]:
            continue
        for other in (*OURS[1:], *OTHERS[case]):
            same = accelerator if other in OURS else f"{accelerator.split(',')[0]}, 32 bits"
            ratios = over((case, way, accelerator), (case, other, same))
            if not ratios:
                continue
            goal = GOALS.get((case, other, "16" if "16" in accelerator else "32"))
            met = "" if goal is None else "met" if statistics.median(ratios) >= goal else "not met"
            precision = accelerator if same == accelerator else f"{accelerator} over 32 bits"
            bare = over((case, OURS[1], accelerator), (case, other, same))
            limit = "" if other == OURS[1] else f"{statistics.median(bare):.2f}"
            lines.append(
                f"| {case} | vaelab / {other} | {precision} | {spread(ratios, 2)} | {goal or ''} | {met} | {limit} |"
            )
    return lines


def _peaks(machine: dict[tuple[str, str], Any]) -> list[str]:
    best: dict[str, float] = {}
    for (_, accelerator), value in machine.items():
        best[accelerator] = max(best.get(accelerator, 0), value["peak"])
    return [f"{accelerator} {peak / 1e12:.2f} TFLOP/s" for accelerator, peak in best.items()]


def whole(epochs: int) -> int:
    """Measures a whole training, and writes its time with the shortest possible time of the machine."""
    kind = "gpu, bfloat16, compiled" if torch.cuda.is_available() else "cpu, bfloat16"
    took, limit = measure("whole", str(epochs), kind), measure("operations", "MathWorks, MNIST", kind)
    images = took["steps"] * 512
    computed, moved = limit["per_image"] * images, limit["bytes"] * took["steps"]
    lines = [
        "# A whole training",
        "",
        f'Written by `make bench ARGS="--whole {epochs}"` on {date.today()}: torch {torch.__version__}, {_device()}. '
        f"`experiment=mathworks_mnist`, {epochs} epochs, {kind}, without images and W&B.",
        "",
        f"- Ready after {took['ready']:.1f} s: imports, data, compilation, the first steps.",
        f"- Training, validation left out: {took['seconds']:.2f} s, {images / took['seconds']:,.0f} images/s.",
        f"- Loss on the test images at the end: {took['loss']:.3f}.",
        f"- Operations: {computed / 1e12:,.1f} TFLOP, at {limit['peak'] / 1e12:,.2f} TFLOP/s, the measured peak of "
        f"matrix products, {computed / limit['peak']:.2f} s.",
        f"- Memory traffic, if each output of a layer is written once and read twice: {moved / 1e9:,.0f} GB, at the "
        f"measured {limit['bandwidth'] / 1e9:,.0f} GB/s {moved / limit['bandwidth']:.2f} s.",
    ]
    text = "\n".join(lines)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"whole-{kind[:3]}.md").write_text(text + "\n")
    print(text)
    return 0


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads of {processor()}"


def main() -> int:
    """Measures, and writes the tables; the exit code is 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("cases", nargs="*", help=f"some of {'; '.join(OTHERS)}; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all programs (default: 3)")
    parser.add_argument(
        "--whole", type=int, metavar="EPOCHS", help="measure this number of epochs of MathWorks instead"
    )
    options = parser.parse_args()
    if options.whole:
        return whole(options.whole)
    if unknown := set(options.cases) - set(OTHERS):
        parser.error(f"no network {', '.join(unknown)}")
    kinds = ("cpu, 32 bits", "cpu, bfloat16")
    if torch.cuda.is_available():
        kinds = ("gpu, 32 bits", "gpu, bfloat16", "gpu, bfloat16, compiled")  # type: ignore[assignment]
    turns = []
    for case in options.cases or OTHERS:
        turns += [(case, way, kind) for kind in kinds for way in OURS]
        others = [way for way in OTHERS[case] if way not in NEEDED or find_spec(NEEDED[way]) is not None]
        turns += [(case, way, kinds[0]) for way in others if kinds[0].startswith("cpu")]
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    machine = {}
    total, started = options.rounds * len(turns), time.monotonic()
    for number in range(total):
        case, way, kind = turn = turns[number % len(turns)]
        if (case, kind) not in machine:
            machine[case, kind] = measure("operations", case, kind)
        left = (time.monotonic() - started) / max(number, 1) * (total - number) / 60
        print(f"[{number + 1} of {total}, {left:.0f} min left] {case}, {way}, {kind}: ", end="", flush=True)
        found.setdefault(turn, []).append(measure(way, case, kind))
        print(f"{found[turn][-1]['images_per_second']:,.0f} images/s", flush=True)
    text = report(found, machine)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"throughput-{kinds[0][:3]}.md").write_text(text)
    print(text)
    return whole(50) if torch.cuda.is_available() else 0


if __name__ == "__main__":
    sys.exit(main())
