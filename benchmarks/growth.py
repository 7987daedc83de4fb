"""How time and memory grow with the data set, the images, the latent space and the network, and what a start costs.

    make growth                              all of it: half an hour on two cores, with nothing else running
    make growth ARGS="starts larger"         some of: sizes, larger, starts

``sizes`` grows one thing at a time, each figure in a process of its own. ``larger`` trains on a folder of pictures that
is larger than the memory which its process may have. ``starts`` times commands until they answer, and until the first
step. Each part has its file in ``benchmarks/results/``.
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
    """A data set of random images, as large as it is wanted."""

    classes = ("noise",)
    name = "noise"

    def __init__(self, count: int, image_shape: list[int]) -> None:
        self.count, self.image_shape = count, image_shape

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def load(self, train: bool) -> Images:
        """So many images to train with, and 100 to test with."""
        count = self.count if train else 100
        images = torch.randint(0, 256, (count, *self.image_shape), dtype=torch.uint8)
        return Images(images, torch.zeros(count, dtype=torch.int64))


class Size(NamedTuple):
    """One training whose time and memory are measured."""

    images: int = 10_000
    side: int = 28
    latent_dim: int = 20
    model: str = "mlp"
    width: int = 400

    @property
    def overrides(self) -> list[str]:
        """What ``train.py`` would be told."""
        shape = f"[1,{self.side},{self.side}]"
        source = f"{{_target_:growth.Noise,count:{self.images},image_shape:{shape}}}"
        width = [f"module.vae.{part}.hidden_sizes=[{self.width}]" for part in ("encoder", "decoder")]
        return [
            *(f"model={self.model}", f"latent_dim={self.latent_dim}", "data=mnist", f"data.image_shape={shape}"),
            *("~data.source", f"+data.source={source}", "data.validation=100", "data.classes=null", *width),
        ]


# One thing at a time, by factors of ten: of the side, of the number of pixels.
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
    """Trains for a few seconds, in this process."""
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(CONFIGS), version_base="1.3"):
        watch = [f"+callbacks.watch._target_={Watch.__module__}.Watch", f"run_dir={folder}", "logger=csv"]
        quiet = ["callbacks.gallery=null", "callbacks.pictures=null", "accelerator=cpu", "trainer.max_epochs=10000"]
        cfg = compose("train", [*size.overrides, *watch, *quiet, "trainer.check_val_every_n_epoch=10000"])
        figures = train(cfg)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = Watch.clock.rate
    return {"microseconds": 1e6 / rate, "memory": peak, "parameters": figures["parameters"]}


def _child(*arguments: str, **options: Any) -> dict[str, Any]:
    """What this script prints when it is called so."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}{done.stdout[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def sizes() -> str:
    """The table of what grows, and its picture."""
    found: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for name, (_, grown) in GROWN.items():
        for value, size in grown:
            print(f"{name} = {value:,} ...", end=" ", flush=True)
            found.setdefault(name, []).append((value, _child("one", json.dumps(size))))
            print(f"{found[name][-1][1]['microseconds']:,.1f} microseconds an image", flush=True)
    lines = [
        "# How time and memory grow",
        "",
        f"Written by `make growth` on {_today()}. One thing grows, the rest stays: {Size().images:,} random grey "
        f"images of {Size().side}x{Size().side} pixels, {Size().latent_dim} latents, `model=mlp` with {Size().width} "
        "hidden units, batches of 128, 32 bits; pictures of more pixels by `model=conv`. Time is of training, per "
        "image; memory is the most that the process had, of which torch and Lightning take some 500 MiB.",
        "",
        "![How time and memory grow](growth.png)",
        "",
        "| what grows | to | microseconds an image | memory, MiB | parameters |",
        "|---|---|---|---|---|",
    ]
    for name, values in found.items():
        for value, figures in values:
            lines.append(
                f"| {GROWN[name][0]} | {value:,} | {figures['microseconds']:,.1f} | {figures['memory']:,.0f} "
                f"| {figures['parameters']:,} |"
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


def _make_pictures(folder: Path) -> None:
    """So many small colour pictures, none like the other."""
    generator = np.random.default_rng(0)
    for start in range(0, LARGER_IMAGES, 1000):
        part = folder / f"{start // 1000:04d}"
        part.mkdir(parents=True)
        coarse = generator.integers(0, 256, (1000, 8, 8, 3), dtype=np.uint8)
        for number, pixels in enumerate(coarse):
            Image.fromarray(pixels).resize((_SIDE, _SIDE)).save(part / f"{number:04d}.jpg", quality=80)


def _memory() -> dict[str, float]:
    """This process's own memory and that of files, which the system takes back when it needs it, MiB."""
    text = Path("/proc/self/status").read_text()
    return {name: int(re.search(rf"{key}:\s+(\d+)", text)[1]) / 1024 for name, key in _KINDS.items()}  # type: ignore[index]


_KINDS = {"own": "RssAnon", "files": "RssFile"}


def within(folder: str, cache: str) -> dict[str, Any]:
    """Decodes a folder of pictures and trains on it, in this process, which may have so much memory of its own."""
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
        figures = train(cfg)
    stop.set()
    watcher.join()
    return {"seconds": time.perf_counter() - began, "rate": figures["images_per_second"], "samples": samples}


def larger() -> str:
    """The note on a data set that is larger than the memory."""
    size = LARGER_IMAGES * 3 * _SIDE * _SIDE / 2**20
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary) / "pictures", Path(temporary) / "cache"
        print(f"making {LARGER_IMAGES:,} pictures ...", flush=True)
        _make_pictures(folder)
        print("decoding them, and training ...", flush=True)
        first = _child("within", str(folder), str(cache))
        second = _child("within", str(folder), str(cache))
    own = [sample["own"] for sample in second["samples"]]
    quarters = [f"{max(own[len(own) * i // 4 : len(own) * (i + 1) // 4]):,.0f}" for i in range(4)]
    mapped = max(sample["files"] for sample in second["samples"])
    lines = [
        "# A data set that is larger than the memory",
        "",
        f"Written by `make growth` on {_today()}. {LARGER_IMAGES:,} JPEG pictures of {_SIDE}x{_SIDE} pixels in colour, "
        f"{size:,.0f} MiB when decoded, and a process that is allowed {LIMIT_MIB:,} MiB of memory of its own "
        "(`RLIMIT_DATA`): `python src/train.py data=image_folder model=mlp loss=mse`, one epoch in a new order.",
        "",
        f"- The first training decodes them into the cache, {first['seconds'] - second['seconds']:,.0f} s, once: "
        f"{LARGER_IMAGES / max(first['seconds'] - second['seconds'], 1):,.0f} pictures a second.",
        f"- Every later one maps it: {second['rate']:,.0f} images a second.",
        f"- The process's own memory in the four quarters of that training, at most: {', '.join(quarters)} MiB. "
        f"Beside it lie up to {mapped:,.0f} MiB of mapped files, which the system takes back when it needs the room.",
    ]
    return "\n".join(lines) + "\n"


def starts() -> str:
    """The table of what a start costs."""
    python, script = sys.executable, str(ROOT / "src" / "train.py")
    commands = {
        "`import hydra` in Python": [python, "-c", "import hydra, hydra._internal.utils"],
        "`train.py --help`": [python, script, "--help"],
        "`train.py modle=conv`, a mistake": [python, script, "modle=conv"],
        "`train.py --cfg job`": [python, script, "--cfg", "job"],
        "`import torch, lightning` in Python": [python, "-c", "import vaelab, torch, lightning"],
    }
    rows = {name: [_seconds(command) for _ in range(7)] for name, command in commands.items()}
    rows["`train.py`, Digits, to the end of the first step"] = [_seconds_to_first_step() for _ in range(5)]
    lines = [
        "# What a start costs",
        "",
        f"Written by `make growth` on {_today()}. Medians, and from the shortest to the longest, of seconds.",
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
    found: float = _child("first", env={**os.environ, "STARTED": str(time.time())})["first_step"]
    return found


def first() -> dict[str, float]:
    """Trains Digits as it is by default, until the first step is done."""
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(CONFIGS), version_base="1.3"):
        watch = [f"+callbacks.watch._target_={Watch.__module__}.Watch", f"run_dir={folder}"]
        train(compose("train", [*watch, "trainer.max_steps=1", "callbacks.gallery=null"]))
    return {"first_step": Watch.clock.first_step}


def _today() -> str:
    return f"{date.today()}: torch {torch.__version__}, {torch.get_num_threads()} threads of {processor()}"


PARTS: dict[str, Callable[[], str]] = {"sizes": sizes, "larger": larger, "starts": starts}


def main() -> int:
    """Measures what was asked for, and writes it down."""
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
