"""Measures how time and memory grow with the data set, images, latent space and network, and startup times.

    make growth                              all of it: half an hour on two cores, with nothing else running
    make growth ARGS="starts larger"         some of sizes, larger, starts

``sizes`` changes one size at a time; each measurement has its own process. ``larger`` trains on a folder of images that
is larger than the memory of its process. ``starts`` measures the time until commands answer, and until the first step.
Each part writes a file in ``benchmarks/results/``.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cases import Watch
from PIL import Image
from runs import RESULTS, ROOT
from throughput import spread

# isort: split
import torch
from hydra import compose, initialize_config_dir

from vaelab.commands.train import train
from vaelab.data.source import Images
from vaelab.runtime.hardware import processor
from vaelab.runtime.paths import CONFIGS
from vaelab.visualization.plots import save_png
from vaelab.visualization.plots.style import PALETTE, new_figure, rendered


class Noise:
    """A data set of random images."""

    classes = ("noise",)
    name = "noise"

    def __init__(self, count: int, image_shape: list[int]) -> None:
        self.count, self.image_shape = count, image_shape

    def prepare(self) -> None:
        """Does nothing: there is nothing to prepare."""

    def load(self, train: bool) -> Images:
        """``count`` training images, or 100 test images."""
        count = self.count if train else 100
        images = torch.randint(0, 256, (count, *self.image_shape), dtype=torch.uint8)
        return Images(images, torch.zeros(count, dtype=torch.int64))


class Size(NamedTuple):
    """The sizes of one training."""

    images: int = 10_000
    side: int = 28
    latent_dim: int = 20
    model: str = "mlp"
    width: int = 400

    @property
    def overrides(self) -> list[str]:
        """The overrides of ``train.py``."""
        shape = f"[1,{self.side},{self.side}]"
        source = f"{{_target_:growth.Noise,count:{self.images},image_shape:{shape}}}"
        width = [f"module.vae.{part}.hidden_sizes=[{self.width}]" for part in ("encoder", "decoder")]
        return [
            *(f"model={self.model}", f"latent_dim={self.latent_dim}", "data=mnist", f"data.image_shape={shape}"),
            *("~data.source", f"+data.source={source}", "data.validation=100", "data.classes=null", *width),
        ]


# One size at a time, by factors of ten.
GROWN: dict[str, tuple[str, list[tuple[float, Size]]]] = {
    "images": ("images in the data set", [(n, Size(images=n)) for n in (1_000, 10_000, 100_000, 1_000_000)]),
    "side": (
        "pixels of an image (conv)",
        [(s * s, Size(images=1_000, side=s, model="conv", width=256)) for s in (10, 32, 100, 316)],
    ),
    "latent_dim": ("latent dimensions", [(d, Size(latent_dim=d)) for d in (2, 20, 200, 2_000)]),
    "width": ("units of the hidden layers", [(w, Size(width=w)) for w in (40, 400, 4_000)]),
}


def one(size: Size) -> dict[str, float]:
    """Trains for a few seconds in this process, and returns its speed, peak memory and parameters."""
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(CONFIGS), version_base="1.3"):
        watch = [f"+callbacks.watch._target_={Watch.__module__}.Watch", f"run_dir={folder}", "logger=csv"]
        quiet = ["callbacks.gallery=null", "callbacks.pictures=null", "accelerator=cpu", "trainer.max_epochs=10000"]
        cfg = compose("train", [*size.overrides, *watch, *quiet, "trainer.check_val_every_n_epoch=10000"])
        metrics = train(cfg)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = Watch.clock.rate
    return {"microseconds": 1e6 / rate, "memory": peak, "parameters": metrics["parameters"]}


def _run_in_child(*arguments: str, **options: Any) -> dict[str, Any]:
    """Runs this script with these arguments, and returns its last line, parsed as JSON."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}{done.stdout[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def sizes() -> str:
    """The table of sizes; also writes its plot."""
    found: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for name, (_, grown) in GROWN.items():
        for value, size in grown:
            print(f"{name} = {value:,} ...", end=" ", flush=True)
            found.setdefault(name, []).append((value, _run_in_child("one", json.dumps(size))))
            print(f"{found[name][-1][1]['microseconds']:,.1f} microseconds an image", flush=True)
    lines = [
        "# How time and memory grow",
        "",
        f"Written by `make growth` on {_today()}. One size changes at a time. The others are {Size().images:,} random "
        f"grey images of {Size().side}x{Size().side} pixels, {Size().latent_dim} latents, `model=mlp` with "
        f"{Size().width} hidden units, batches of 128, 32 bits. Larger images use `model=conv`. The time is training "
        "time per image. The memory is the peak of the process, of which torch and Lightning take about 500 MiB.",
        "",
        "![How time and memory grow](growth.png)",
        "",
        "| what grows | to | microseconds an image | memory, MiB | parameters |",
        "|---|---|---|---|---|",
    ]
    for name, values in found.items():
        for value, metrics in values:
            lines.append(
                f"| {GROWN[name][0]} | {value:,} | {metrics['microseconds']:,.1f} | {metrics['memory']:,.0f} "
                f"| {metrics['parameters']:,} |"
            )
    with new_figure(11, 3.2) as figure:
        for column, (name, values) in enumerate(found.items(), 1):
            axes = figure.add_subplot(1, len(found), column)
            xs = [value for value, _ in values]
            for number, (key, label) in enumerate((("microseconds", "microseconds an image"), ("memory", "MiB"))):
                axes.plot(xs, [each[key] for _, each in values], "o-", color=PALETTE[number], label=label)
            axes.set(xscale="log", yscale="log", xlabel=GROWN[name][0], ylim=(10, 100_000))
            if column == 1:
                axes.legend()
        save_png(rendered(figure), RESULTS / "growth.png")
    return "\n".join(lines) + "\n"


LARGER_IMAGES, LIMIT_MIB = 150_000, 1_200
_SIDE = 64


def _make_images(folder: Path) -> None:
    """Writes small colour images, all different."""
    generator = np.random.default_rng(0)
    for start in range(0, LARGER_IMAGES, 1000):
        part = folder / f"{start // 1000:04d}"
        part.mkdir(parents=True)
        coarse = generator.integers(0, 256, (1000, 8, 8, 3), dtype=np.uint8)
        for number, pixels in enumerate(coarse):
            Image.fromarray(pixels).resize((_SIDE, _SIDE)).save(part / f"{number:04d}.jpg", quality=80)


def _memory() -> dict[str, float]:
    """Memory of this process and of its mapped files, which the system can reclaim, in MiB."""
    text = Path("/proc/self/status").read_text()
    return {name: int(re.search(rf"{key}:\s+(\d+)", text)[1]) / 1024 for name, key in _KINDS.items()}  # type: ignore[index]


_KINDS = {"own": "RssAnon", "files": "RssFile"}


def within(folder: str, cache: str) -> dict[str, Any]:
    """Decodes a folder of images and trains on it, in this process and with its memory limited to ``LIMIT_MIB``."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_MIB << 20, LIMIT_MIB << 20))
    samples: list[dict[str, float]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1):
            samples.append(_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as run, initialize_config_dir(str(CONFIGS), version_base="1.3"):
        settings = ["data=image_folder", f"data.source.folder={folder}", f"data.source.cache_dir={cache}"]
        settings += [
            "model=mlp",
            "loss=mse",
            "accelerator=cpu",
            "logger=csv",
            f"run_dir={run}",
            "keep_freed_memory=false",
        ]
        cfg = compose("train", [*settings, "callbacks.gallery=null", "data.validation=1000", "trainer.max_epochs=1"])
        metrics = train(cfg)
    stop.set()
    watcher.join()
    return {"seconds": time.perf_counter() - began, "rate": metrics["images_per_second"], "samples": samples}


def larger() -> str:
    """The results for a data set that is larger than the memory."""
    size = LARGER_IMAGES * 3 * _SIDE * _SIDE / 2**20
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary) / "pictures", Path(temporary) / "cache"
        print(f"making {LARGER_IMAGES:,} images ...", flush=True)
        _make_images(folder)
        print("decoding them, and training ...", flush=True)
        first = _run_in_child("within", str(folder), str(cache))
        second = _run_in_child("within", str(folder), str(cache))
    own = [sample["own"] for sample in second["samples"]]
    quarters = [f"{max(own[len(own) * i // 4 : len(own) * (i + 1) // 4]):,.0f}" for i in range(4)]
    mapped = max(sample["files"] for sample in second["samples"])
    lines = [
        "# A data set that is larger than the memory",
        "",
        f"Written by `make growth` on {_today()}. {LARGER_IMAGES:,} JPEG images of {_SIDE}x{_SIDE} pixels in colour, "
        f"{size:,.0f} MiB when decoded. The memory of the process is limited to {LIMIT_MIB:,} MiB (`RLIMIT_DATA`). The "
        "command is `python src/train.py data=image_folder model=mlp loss=mse`, for one epoch in a new order.",
        "",
        f"- The first training decodes the images into the cache, once: {first['seconds'] - second['seconds']:,.0f} s, "
        f"{LARGER_IMAGES / max(first['seconds'] - second['seconds'], 1):,.0f} images per second.",
        f"- Later trainings map the cache: {second['rate']:,.0f} images per second.",
        f"- Peak memory of the process in the four quarters of that training: {', '.join(quarters)} MiB. In addition, "
        f"up to {mapped:,.0f} MiB of files are mapped, which the system can reclaim.",
    ]
    return "\n".join(lines) + "\n"


def starts() -> str:
    """The table of startup times."""
    python, script = sys.executable, str(ROOT / "src" / "train.py")
    commands = {
        "`import hydra` in Python": [python, "-c", "import hydra, hydra._internal.utils"],
        "`train.py --help`": [python, script, "--help"],
        "`train.py modle=conv`, an error": [python, script, "modle=conv"],
        "`train.py --cfg job`": [python, script, "--cfg", "job"],
        "`import torch, lightning` in Python": [python, "-c", "import vaelab, torch, lightning"],
    }
    rows = {name: [_seconds(command) for _ in range(7)] for name, command in commands.items()}
    rows["`train.py`, Digits, to the end of the first step"] = [_seconds_to_first_step() for _ in range(5)]
    lines = [
        "# Startup times",
        "",
        f"Written by `make growth` on {_today()}. Medians in seconds, with the shortest and the longest time.",
        "",
        "| command | seconds |",
        "|---|---|",
        *(f"| {name} | {spread(values, 2)} |" for name, values in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, capture_output=True)
    return time.perf_counter() - began


def _seconds_to_first_step() -> float:
    found: float = _run_in_child("first", env={**os.environ, "STARTED": str(time.time())})["first_step"]
    return found


def first() -> dict[str, float]:
    """Trains Digits with the default settings until the end of the first step."""
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(CONFIGS), version_base="1.3"):
        watch = [f"+callbacks.watch._target_={Watch.__module__}.Watch", f"run_dir={folder}"]
        train(compose("train", [*watch, "trainer.max_steps=1", "callbacks.gallery=null"]))
    return {"first_step": Watch.clock.first_step}


def _today() -> str:
    return f"{date.today()}: torch {torch.__version__}, {torch.get_num_threads()} threads of {processor()}"


PARTS: dict[str, Callable[[], str]] = {"sizes": sizes, "larger": larger, "starts": starts}


def main() -> int:
    """Runs the chosen parts, and writes their results."""
    if sys.argv[1:2] in (["one"], ["within"], ["first"]):
        kind, *arguments = sys.argv[1:]
        call: dict[str, Callable[[], Any]] = {
            "one": lambda: one(Size(*json.loads(arguments[0]))),
            "within": lambda: within(*arguments),
            "first": first,
        }
        print(json.dumps(call[kind]()), file=sys.__stdout__)
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all by default")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in options.parts or PARTS:
        text = PARTS[name]()
        (RESULTS / f"{'growth' if name == 'sizes' else name}.md").write_text(text)
        print(text)
    return 0


if __name__ == "__main__":
    sys.modules["growth"] = sys.modules["__main__"]
    sys.exit(main())
