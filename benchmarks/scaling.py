"""Measures training with one and two processes, and predicts many devices from assumptions.

    make scaling                       a quarter of an hour on two cores; resumes complete parts
    make scaling ARGS="--epochs 3"     shorter

Writes ``benchmarks/results/scaling.md``; ``docs/scaling.md`` explains it. A process has one thread, so two processes
have twice the cores of one. The machine must have two idle cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from runs import RESULTS, ROOT, finished

sys.path.insert(0, str(ROOT / "src"))

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.multiprocessing.spawn import spawn

import vaelab.commands.cli  # noqa: F401  (registers the resolvers of the configuration)

RUNS = ROOT / "logs" / "scaling"
MODELS = ("mlp", "conv")
# Processes, and images in a batch of all processes: one process; two with as many images each; two with the same batch;
# one with half of it, the share of each of two.
SHAPES = ((1, 128), (2, 256), (2, 128), (1, 64))
DEVICES = (1, 8, 64, 512)


class Workload(NamedTuple):
    """A model and data set, and assumptions about a device. Only the parameters are counted.

    Attributes:
        name: of the workload.
        settings: of ``train.py``, for the model.
        images: in an epoch.
        image_bytes: of a stored image.
        per_second: assumed training images per second and device, with a batch that keeps it busy.
        batch: images per device that keep it busy.
    """

    name: str
    settings: tuple[str, ...]
    images: int
    image_bytes: int
    per_second: float
    batch: int


WORKLOADS = (
    Workload("MNIST, `model=conv`", ("model=conv",), 55_000, 28 * 28, 100_000, 128),
    Workload(
        "ImageNet at 64x64, `model=resnet latent_dim=256`",
        ("model=resnet", "latent_dim=256", "data.image_shape=[3,64,64]"),
        1_281_167,
        3 * 64 * 64,
        10_000,
        128,
    ),
)

OVERHEAD = 2e-3  # seconds of a step that do not depend on its size: Python, Lightning, kernel launches
NODE = 8  # devices in a machine
INSIDE, BETWEEN = 200e9, 20e9  # bytes per second between devices: in a machine, between machines
LATENCY = 10e-6  # seconds from one device to the next


def all_reduce_seconds(count: int, devices: int) -> float:
    """The time of a ring all-reduce of ``count`` 32-bit numbers: 2 (N - 1) steps with 1/N of them each."""
    link = INSIDE if devices <= NODE else BETWEEN
    return 2 * (devices - 1) * (LATENCY + 4 * count / devices / link)


def parameters(settings: Sequence[str]) -> int:
    """The number of parameters of the model with these settings."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=["~hydra", "run_dir=.", *settings])
    module = instantiate(cfg.module, _convert_="all")
    return sum(parameter.numel() for parameter in module.parameters())


def projection(work: Workload) -> list[str]:
    """The computed table of a workload: first the batch grows with the devices, then it is constant."""
    count = parameters(work.settings)
    lines = [
        f"### {work.name}",
        "",
        f"{count:,} parameters: {4 * count / 1e6:,.1f} MB of gradients; {16 * count / 1e6:,.1f} MB of weights, "
        f"gradients and Adam's state on each device, and {work.images * work.image_bytes / 1e9:,.2f} GB of images. "
        f"Assumed: {work.per_second:,.0f} images/s per device.",
        "",
        "| devices | batch | batch of a device | sent per device and step, MB | computing, ms | all-reduce, ms | "
        "images/s | of linear | epoch, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for grows in (True, False):
        one_device = 0.0
        for devices in DEVICES:
            batch = work.batch * devices if grows else work.batch * NODE
            share = batch / devices
            computing = OVERHEAD + share / work.per_second
            sending = all_reduce_seconds(count, devices)
            # DDP sends during the backward pass, two thirds of the computing; a longer transfer delays the step.
            step = computing + max(0.0, sending - 2 / 3 * share / work.per_second)
            rate = batch / step
            one_device = one_device or rate
            sent = 2 * (devices - 1) / devices * 4 * count / 1e6
            lines.append(
                f"| {devices} | {batch:,} | {share:,.0f} | {sent:,.1f} | {1e3 * computing:,.2f} | {1e3 * sending:,.2f} "
                f"| {rate:,.0f} | {rate / one_device / devices:.0%} | {work.images / rate:,.2f} |"
            )
    return [*lines, ""]


def measure(model: str, processes: int, batch: int, epochs: int) -> dict[str, float] | None:
    """Trains, and returns the metrics with the memory of the largest process; ``None`` if it fails."""
    folder = RUNS / f"{model}-{processes}x{batch}-{epochs}"
    notes = folder / "scaling.json"
    if not (finished(folder) and notes.is_file()):
        typed = [f"model={model}", f"data.batch_size={batch}", f"trainer.max_epochs={epochs}", "callbacks=none"]
        typed += ["logger=csv", "trainer.accelerator=cpu", f"trainer.devices={processes}", f"hydra.run.dir={folder}"]
        typed += ["trainer.strategy=ddp"] if processes > 1 else []
        if (folder / "checkpoints" / "last.ckpt").is_file():
            for path in sorted(folder.rglob("*"), reverse=True):  # a resumed training has no speed
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        command = [sys.executable, str(ROOT / "src" / "train.py"), *typed]
        child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        _, status, usage = os.wait4(child.pid, 0)  # usage of the largest: the child, or one of its own children
        if status or not finished(folder):
            return None
        notes.write_text(json.dumps({"memory": usage.ru_maxrss / 1024}))  # KiB on Linux
    metrics: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return {**metrics, **json.loads(notes.read_text())}


def _reduce(rank: int, address: str, count: int, path: str) -> None:
    """One of two processes that sum a gradient."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    values = torch.zeros(count)
    for _ in range(5):
        torch.distributed.all_reduce(values)
    started = time.perf_counter()
    for _ in range(50):
        torch.distributed.all_reduce(values)
    if rank == 0:
        Path(path).write_text(str((time.perf_counter() - started) / 50))
    torch.distributed.destroy_process_group()


def measure_all_reduce(count: int) -> float:
    """Seconds in which two processes sum ``count`` numbers with gloo."""
    with tempfile.TemporaryDirectory() as folder:
        result = str(Path(folder) / "seconds")
        spawn(_reduce, (f"file://{folder}/store", count, result), nprocs=2)
        return float(Path(result).read_text())


def measured(epochs: int) -> list[str] | None:
    """The table of measurements; ``None`` if a training fails."""
    lines = [
        "| model | processes | batch | images/s | of linear | step, ms | memory of a process, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    checks = []
    for model in MODELS:
        steps = {}
        base = 0.0
        for processes, batch in SHAPES:
            print(f"{model}: {processes} processes, batches of {batch}", flush=True)
            metrics = measure(model, processes, batch, epochs)
            if metrics is None:
                return None
            rate = metrics["images_per_second"]
            base = base or rate
            steps[processes, batch] = batch / rate
            lines.append(
                f"| `{model}` | {processes} | {batch} | {rate:,.0f} | {rate / base / processes:.0%} | "
                f"{1e3 * batch / rate:.2f} | {metrics['memory']:,.0f} |"
            )
        count = parameters([f"model={model}"])
        seconds = measure_all_reduce(count)
        checks.append(
            f"- `{model}`: {count:,} parameters. gloo sums their gradients over two processes in {1e3 * seconds:.2f} "
            f"ms. A step of 64 images takes one process {1e3 * steps[1, 64]:.2f} ms. A step of 128 images should take "
            f"two processes {1e3 * steps[1, 64]:.2f} ms if the sum overlaps with the backward pass, and "
            f"{1e3 * (steps[1, 64] + seconds):.2f} ms if not. It takes {1e3 * steps[2, 128]:.2f} ms."
        )
    return [*lines, "", *checks]


def main() -> int:
    """Measures, predicts and writes; the exit code is 1 if a training has failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=10, help="of each training (default: 10)")
    parser.add_argument("--output", type=Path, default=RESULTS / "scaling.md", help="the file to write")
    options = parser.parse_args()
    table = measured(options.epochs)
    if table is None:
        print("a training failed", file=sys.stderr)
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[1]
    lines = [
        "# Scaling",
        "",
        f"Written by `make scaling` on {date.today()}, torch {torch.__version__}, {cores} cores, {options.epochs} "
        "epochs of Digits (4,500 images). docs/scaling.md explains the results.",
        "",
        "## Measured",
        "",
        "One thread per process, with gloo. The two processes share caches and memory bandwidth, so this measures the "
        f"cost of DDP, not a cluster. The load of the five minutes before the end was {load:.1f}. If it is well above "
        "2, another program was running, and the values are not reliable.",
        "",
        *table,
        "",
        "## Computed",
        "",
        "Only the number of parameters is measured. A ring all-reduce takes 2 (N - 1) steps with 1/N of the gradient "
        f"each. Assumptions: {INSIDE / 1e9:.0f} GB/s between devices in a machine of {NODE}, {BETWEEN / 1e9:.0f} GB/s "
        f"between machines, {1e6 * LATENCY:.0f} us for a step of the ring, and {1e3 * OVERHEAD:.0f} ms of a training "
        "step that do not depend on its size. The sum overlaps with the backward pass, two thirds of the computing. In "
        "the first rows the batch grows with the devices. In the others it is that of eight devices.",
        "",
        *(line for work in WORKLOADS for line in projection(work)),
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n".join(lines).rstrip() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
