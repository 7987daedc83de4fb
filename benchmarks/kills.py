"""Ends trainings at random moments and in every phase, resumes them, and compares their ends with an undisturbed one.

    make kills                    20 trainings, each killed once (SIGKILL), two of them while a checkpoint is written;
                                  and one training for every signal in every phase
    make kills ARGS="--kills 5 --signals SIGTERM"

Writes ``kills.md`` and ``signals.md`` in ``benchmarks/results``. The weights, the state of the optimiser, all random
generators and all logged metrics must be identical to the bit. A signal must give one line and the exit code 128 + n,
and leave a checkpoint if there was a step. The resumed training must have all files of the undisturbed one.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from runs import RESULTS, ROOT
from signalled import PHASES

# A checkpoint every five steps, so that most kills are within an epoch. Random images and latents, a schedule and a
# warm-up have states that could be lost.
SETTINGS = [
    *("model=mlp", "data.limit=2000", "data.batch_size=32", "data.binarize=dynamic", "trainer.max_epochs=6"),
    *("objective=beta", "module.objective.warmup.steps=200", "scheduler=cosine", "trainer.log_every_n_steps=7"),
    *("callbacks.last.every_n_train_steps=5", "callbacks.pictures=null", "callbacks.gallery=null", "logger=csv"),
]


def command(folder: Path, *more: str) -> list[str]:
    """The command of a training in this folder."""
    return [sys.executable, str(ROOT / "src" / "train.py"), *SETTINGS, f"hydra.run.dir={folder}", *more]


def kill(folder: Path, delay: float, while_writing: bool) -> str:
    """Starts a training, and kills it after its first checkpoint.

    Args:
        folder: of the training.
        delay: seconds after the first checkpoint.
        while_writing: wait until the next checkpoint is being written.

    Returns:
        A description of the last checkpoint; empty if the training was complete before.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command(folder), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        last = folder / "checkpoints" / "last.ckpt"

        def is_half_written() -> bool:
            return any(last.parent.glob(f".{last.name}.*.partial"))

        while not last.exists() and child.poll() is None:
            time.sleep(0.002)
        time.sleep(delay)
        while while_writing and not is_half_written() and child.poll() is None:
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
    if (folder / "metrics.json").exists():
        return ""
    step = torch.load(last, weights_only=True)["global_step"] if last.exists() else 0
    return f"after step {step}{', a checkpoint half written' if is_half_written() else ''}"


def state(folder: Path) -> tuple[dict[str, Any], str]:
    """The results of a training: the state in its last checkpoint, and its metrics."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    kept = {name: checkpoint[name] for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step")}
    kept["random_states"] = checkpoint["vaelab"]["random_states"]
    return kept, (folder / "metrics.csv").read_text()


def same(a: Any, b: Any) -> bool:
    """Whether two states are identical to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


# A training of a second, with plots and a report. It has a step of which a signal is sent, and a validation after it.
SHORT = [
    *("model=mlp", "latent_dim=2", "data.limit=64", "data.batch_size=16", "trainer.max_epochs=2", "logger=csv"),
    *("data.binarize=dynamic", "trainer.accelerator=cpu"),
]
NOT_TRAINED = ("composition", "checks", "data", "sanity check", "start")  # phases before the first step
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU")


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs Python on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)


def short(folder: Path, *more: str) -> list[str]:
    """The words of a short training in this folder."""
    return [str(ROOT / "src" / "train.py"), *SHORT, f"hydra.run.dir={folder}", *more]


def files(folder: Path) -> set[str]:
    """The names of the files of a run."""
    found = (path.relative_to(folder) for path in folder.rglob("*.*") if path.is_file())
    return {str(path) for path in found if path.parts[0] != ".hydra"}


def signal_in(phase: str, name: str, whole: Path, folder: Path) -> str:
    """Sends a training a signal in a phase, and resumes it.

    Returns:
        ``identical``, or what was wrong.
    """
    number = signal.Signals[name]
    done = run([str(ROOT / "benchmarks" / "signalled.py"), name, phase, *short(folder)])
    said = done.stdout + done.stderr
    if done.returncode != 128 + number:
        return f"exit code {done.returncode}"
    if said.count("stopped by") != 1 or "Traceback" in said:
        return f"said {said.strip()[-200:]}"
    is_kept = (folder / "checkpoints" / "last.ckpt").exists()
    if is_kept != (phase not in NOT_TRAINED):
        return "a checkpoint" if is_kept else "no checkpoint"
    again = run(short(folder, f"ckpt_path={folder}") if is_kept else short(folder))
    if again.returncode:
        return again.stderr.strip()[-200:]
    if files(folder) != files(whole):
        return f"other files: {' '.join(sorted(files(folder) ^ files(whole)))}"
    return "identical" if same(state(folder), state(whole)) else "another state"


def write(name: str, title: str, text: str, right: list[bool], header: list[str], rows: list[list[str]]) -> bool:
    """Writes a page of results; returns whether all are right."""
    lines = [
        f"# {title}",
        "",
        f"Written by `make kills` on {date.today()}, torch {torch.__version__}, one CPU thread. {text}",
        "",
        f"**{sum(right)} of {len(right)} identical.**",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / name).write_text("\n".join(lines) + "\n")
    return all(right)


def kills(count: int, home: Path) -> bool:
    """Kills so many trainings at random moments, and resumes them."""
    generator = random.Random(0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    subprocess.run(command(home / "whole"), env=environment, check=True, stdout=subprocess.DEVNULL)
    whole, rows = state(home / "whole"), []
    length = time.monotonic() - started
    for number in range(count):
        folder, while_writing = home / f"killed{number}", number < 2
        while not (moment := kill(folder, generator.uniform(0, 0.4 * length), while_writing)):
            shutil.rmtree(folder)
        done = subprocess.run(
            command(folder, f"ckpt_path={folder}")
            if (folder / "checkpoints" / "last.ckpt").exists()
            else command(folder),
            env=environment,
            capture_output=True,
            text=True,
        )
        identical = done.returncode == 0 and same(state(folder), whole)
        outcome = "identical" if identical else f"different {done.stderr.strip()[-200:]}"
        rows.append([str(number + 1), moment, outcome])
        print(*rows[-1], sep=": ", flush=True)
        if identical:
            shutil.rmtree(folder)
    text = (
        "Each training was killed with SIGKILL, resumed with `ckpt_path=`, and compared with an undisturbed training: "
        "weights, optimiser, schedule, random generators and `metrics.csv`, bit for bit."
    )
    header = ["kill", "last checkpoint", "result"]
    right = [outcome == "identical" for *_, outcome in rows]
    return write("kills.md", "Trainings that were killed and resumed", text, right, header, rows)


def signals(names: list[str], home: Path) -> bool:
    """Sends a training each signal in each phase, and resumes it."""
    if run(short(home / "short")).returncode:
        raise SystemExit("the short training failed")
    rows = []
    for phase in PHASES:
        if phase == "next job":  # of a sweep
            continue
        rows.append([phase])
        for name in names:
            folder = home / f"{phase.replace(' ', '-')}-{name}"
            rows[-1].append(signal_in(phase, name, home / "short", folder))
            print(phase, name, rows[-1][-1], sep=": ", flush=True)
            if rows[-1][-1] == "identical":
                shutil.rmtree(folder, ignore_errors=True)
    text = (
        "A short training gets a signal in a phase. It must end with one line and the exit code 128 + n. Resumed, it "
        "must have the weights, the states, the metrics and all files of an undisturbed training."
    )
    right = [outcome == "identical" for _, *outcomes in rows for outcome in outcomes]
    return write("signals.md", "Signals in every phase of a training", text, right, ["phase", *names], rows)


def main() -> int:
    """Runs the trainings; the exit code is 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20, help="how many trainings are killed (default: 20; 0 for none)")
    parser.add_argument("--signals", nargs="*", default=SIGNALS, help="sent in every phase (default: all)")
    options = parser.parse_args()
    # What a script starts in the background, this one perhaps, is born deaf to it, and so are its own processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="kills"))
    right = [kills(options.kills, home)] if options.kills else []
    right += [signals(list(options.signals), home)] if options.signals else []
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
