"""Random command lines, and what is wrong with the answers to them.

A line changes settings of a small training, or of a command for a trained model: to values of any type and size, to
other options, to interpolations; it deletes settings, adds some, and misspells some. Whatever is typed, the command
either does what is typed, or prints one line; and what that line proposes can be typed.
"""

import json
import math
import random
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests import warm
from tests.conftest import ROOT, composed
from vaelab.runtime.paths import options_of

SMALL = [
    *("data=digits", "data.limit=64", "data.batch_size=32", "model=mlp", "latent_dim=3", "trainer.max_epochs=1"),
    *("trainer.limit_train_batches=2", "trainer.max_steps=4", "logger=csv", "report=false", "callbacks=none"),
]
GROUPS = (
    *("model", "loss", "prior", "posterior", "objective", "optimizer", "scheduler", "accelerator", "callbacks"),
    *("logger", "debug"),
)
COMMANDS = ("evaluate", "generate", "export", "explore")
VALUES = [
    *("0", "1", "-1", "2", "3", "7", "64", "1.5", "-0.5", "0.0", "0.1", "1e-30", "1e30", "1e400", "nan", "inf", "-inf"),
    *("100000", "1000000000", "10000000000000000000000", "true", "false", "null", "abc", "''", "'0'", "' '", "'a b'"),
    *(
        "[]",
        "[1]",
        "[-1,2]",
        "[1,2]",
        "[1,28,28]",
        "[[1]]",
        "[abc]",
        "[null]",
        "[0.9,0.999]",
        "{}",
        "{a:1}",
        "{a:{b:2}}",
    ),
    *("test", "auto", "all", "latest", "max", "min", "val/loss", "/dev/null/x", "../x", "~", "naïve", "日本", "100%"),
    *("${latent_dim}", "${nope}", "${seed}", "'\\${latent_dim}'", "torch.nn.ReLU", "vaelab.models.vae.VAE", "1,2"),
    *("ReLU", "0x10", "1_000", "08", "+1", ".5", "5.", "None", "True", "yes", "no", "'null'", "'[1,2]'"),
]
# What a random value may make long, or send anywhere: it is set by other lines. The last groups belong to Hydra.
LEFT_OUT = re.compile(r"hydra|run_dir|.*(?:_dir|\.folder|dirpath|\.path|\.cache_dir)$|serve|open$|port|entity|project")


@dataclass
class Line:
    """A command line.

    Attributes:
        command: its name.
        base: what is typed first.
        changes: what is typed after it, at random.
    """

    command: str
    base: list[str]
    changes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.command}.py {' '.join(map(shlex.quote, self.changes))}"

    def run(self, folder: Path) -> subprocess.CompletedProcess[str]:
        """Runs the command, with its files in a folder."""
        words = [ROOT / "src" / f"{self.command}.py", *self.base, *self.changes, f"hydra.run.dir={folder}"]
        return warm.run(words, cwd=folder.parent, timeout=120)


def random_lines(count: int, run: Path, seed: int) -> Iterator[Line]:
    """Command lines: three of four for trainings, the others for commands that take the run of a training."""
    chance = random.Random(seed)
    for _ in range(count):
        command = "train" if chance.random() < 0.75 else chance.choice(COMMANDS)
        base = list(SMALL) if command == "train" else [f"run={run}", *_quick(command)]
        choices = []
        if command == "train" and chance.random() < 0.4:
            group = chance.choice(GROUPS)
            choices = [f"{group}={chance.choice(options_of(group))}"]
        cfg = composed(command, "run_dir=/nowhere", *base, *choices)
        leaves, nodes = _names(OmegaConf.to_container(cfg))
        changes = [_change(chance, leaves, nodes) for _ in range(chance.choice((1, 1, 1, 2)))]
        yield Line(command, base, [*choices, *changes])


def _quick(command: str) -> list[str]:
    """Settings with which a command takes a second."""
    return {
        "evaluate": ["what=likelihood", "likelihood.samples=2", "likelihood.limit=8"],
        "generate": ["what=samples", "count=4", "limit=16"],
        "export": ["format=torch_export"],
        "explore": ["images=8", "draws=8", "open=false"],
    }[command]


def _names(node: Any, prefix: str = "") -> tuple[list[str], list[str]]:
    """The names of the settings and of the groups of settings."""
    leaves: list[str] = []
    nodes: list[str] = []
    for key, value in node.items():
        name = f"{prefix}{key}"
        if LEFT_OUT.match(name):
            continue
        if isinstance(value, dict):
            nodes.append(name)
            below = _names(value, f"{name}.")
            leaves, nodes = leaves + below[0], nodes + below[1]
        else:
            leaves.append(name)
    return leaves, nodes


def _change(chance: random.Random, leaves: Sequence[str], nodes: Sequence[str]) -> str:
    leaf, node, value = chance.choice(leaves), chance.choice(nodes or leaves), chance.choice(VALUES)
    shuffled = list(leaf)
    place = chance.randrange(len(shuffled))
    shuffled[place : place + 2] = reversed(shuffled[place : place + 2])
    misspelt = "".join(shuffled)
    shares = {
        f"{leaf}={value}": 60,
        f"{node}={value}": 8,
        f"~{leaf}": 6,
        f"~{node}": 3,
        f"+{node}.extra={value}": 4,
        f"++{leaf}={value}": 4,
        f"{misspelt}={value}": 4,
        f"{chance.choice(GROUPS)}={value}": 4,
        f"+{leaf}={value}": 2,
        leaf: 1,
    }
    return chance.choices(list(shares), weights=list(shares.values()))[0]


def fault(line: Line, folder: Path) -> str | None:
    """Runs a command line, and what its answer proposes. Returns what is wrong with the answers."""
    try:
        done = line.run(folder / "run")
    except subprocess.TimeoutExpired:
        return "it did not end"
    wrong = _wrong_answer(done) or (nonsense(line, folder / "run") if done.returncode == 0 else None)
    if wrong or done.returncode == 0:
        return wrong
    return wrong_advice(line, done.stderr.strip(), folder)


def _wrong_answer(done: subprocess.CompletedProcess[str]) -> str | None:
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    if "Traceback" in done.stderr + done.stdout:
        return f"a traceback: {lines[-1] if lines else done.stdout[-300:]}"
    if done.returncode not in (0, 1):
        return f"exit code {done.returncode}: {lines}"
    if done.returncode == 1 and not (len(lines) == 1 and lines[0].startswith("error: ")):
        return f"not one line: {lines}"
    return None


def nonsense(line: Line, run: Path) -> str | None:
    """What a training that has ended well did otherwise than typed, or that its metrics are no numbers."""
    if line.command != "train":
        return None
    if not (run / "metrics.json").is_file():
        return "no metrics.json"
    metrics = json.loads((run / "metrics.json").read_text())
    bad = [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        return f"not finite: {bad}"
    config: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    if config["module"]["vae"]["latent_dim"] != config["latent_dim"]:
        return "two sizes of the latent space"
    for change in line.changes:
        key, equals, value = change.lstrip("+").partition("=")
        if change.startswith("~") or not equals or key in GROUPS or value.startswith(("$", "'", "{", "[")):
            continue
        node: Any = config
        for name in key.split("."):
            node = node.get(name) if isinstance(node, dict) else None
        stated = OverridesParser.create().parse_override(f"v={value}").value()
        if node != stated and str(node) != value:
            return f"{change} was typed, and {key} is {node!r}"
    return None


_PROPOSED = re.compile(r"(?:type (?:e\.g\. )?|did you mean )(.*?)\??$")


def proposals(answer: str) -> list[str]:
    """The settings that an answer proposes to type, as a shell reads them; none if they have gaps to fill."""
    found = _PROPOSED.search(answer.splitlines()[0]) if answer else None
    if found is None:
        return []
    proposed = []
    try:
        words = shlex.split(found[1])
    except ValueError:
        return []
    for word in words:
        if "=" not in word or "..." in word or "<" in word:
            break
        proposed.append(word.rstrip(",;"))
    return proposed


def wrong_advice(line: Line, answer: str, folder: Path) -> str | None:
    """Types what an answer proposes. Returns that it is refused for the same setting, or answered wrongly."""
    proposed = proposals(answer)
    if not proposed:
        return None
    keys = {text.partition("=")[0] for text in proposed}
    kept = [text for text in line.changes if not _is_meant(text, answer, keys)]
    better = Line(line.command, line.base, [*kept, *proposed])
    try:
        done = better.run(folder / "again")
    except subprocess.TimeoutExpired:
        return f"proposed {proposed}: it did not end"
    wrong = _wrong_answer(done)
    refused = "|".join(map(re.escape, keys))
    if "did you mean" in answer or " follows " in answer:  # its value may be wrong, too
        refused = rf"(there is no setting|nothing reads) ({refused})\b"
    elif "type e.g." in answer:  # the type is right, though there may be no such file or class
        refused = rf"({refused})=.* must be"
    if wrong is None and re.match(f"error: {refused}", done.stderr.strip()):
        wrong = f"refused: {done.stderr.strip()}"
    return wrong and f"{answer} -- then: {wrong}"


def _is_meant(text: str, answer: str, keys: set[str]) -> bool:
    """Whether an answer is about this change."""
    key = text.lstrip("+~").partition("=")[0]
    return key in keys or re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", answer) is not None
