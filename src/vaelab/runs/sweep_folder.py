"""What the folder of a sweep holds: its jobs, ranked."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vaelab.runs import comparability
from vaelab.runtime.paths import FAILURE

TERMS = ("val/elbo", "test/elbo", "test/reconstruction", "test/kl")


@dataclass
class Job:
    """One job of a sweep.

    Attributes:
        number: of its folder.
        overrides: all that was typed for it.
        figures: its ``metrics.json``; empty where it is not complete.
        failure: why it failed, or nothing.
        kind: what the jobs have in common whose figures can be compared with this one's.
        rank: among the complete jobs of its kind, from 1; 0 where it is none.
        report: whether it was to have one, if it came so far.
        wandb: ``logger.wandb`` of its configuration, where it has that.
    """

    number: int
    overrides: dict[str, str]
    figures: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    kind: str = ""
    rank: int = 0
    report: bool | None = None
    wandb: dict[str, Any] = field(default_factory=dict)

    @property
    def elbo(self) -> float:
        """On validation images, by which jobs are ranked; the least there is where it is no number."""
        value = self.figures.get("val/elbo")
        return value if isinstance(value, float) and math.isfinite(value) else -math.inf

    @property
    def status(self) -> str:
        return "done" if self.figures else "failed" if self.failure else "not complete"


def read(folder: Path) -> list[Job]:
    """The jobs of a sweep's folder, those of one kind together, the best validation ELBO first, failures last."""
    jobs = []
    for path in folder.iterdir():
        hydras = path / ".hydra" / "overrides.yaml"
        if not (path.name.isdecimal() and hydras.is_file()):
            continue
        typed: Any = OmegaConf.load(hydras)
        job = Job(int(path.name), {})
        if (path / "metrics.json").is_file():
            job.figures = json.loads((path / "metrics.json").read_text())
        elif (path / FAILURE).is_file():
            job.failure = (path / FAILURE).read_text().strip()
        if (path / "config.yaml").is_file():
            config: Any = OmegaConf.to_container(OmegaConf.load(path / "config.yaml"))
            typed = config.get("overrides", typed)  # Hydra's are of the last attempt, whatever came of it
            job.kind = json.dumps(comparability.shared_settings(config, job.figures.get("unit") == "nats"))
            job.report = bool(config.get("report", True))
            job.wandb = (config.get("logger") or {}).get("wandb") or {}
        job.overrides = dict(override.lstrip("+").split("=", 1) for override in typed if "=" in override)
        jobs.append(job)
    done = sorted((job for job in jobs if job.figures), key=lambda job: (job.kind, -job.elbo, job.number))
    for _, same in itertools.groupby(done, key=lambda job: job.kind):
        for rank, job in enumerate(same, 1):
            job.rank = rank
    return done + sorted((job for job in jobs if not job.figures), key=lambda job: job.number)


def swept(jobs: Sequence[Job]) -> list[str]:
    """What differs between the jobs, in the order in which it was typed."""
    names = list(dict.fromkeys(name for job in jobs for name in job.overrides))
    return [name for name in names if len({job.overrides.get(name) for job in jobs}) > 1]


def caption(are_alike: bool) -> str:
    """What stands below a table of jobs, of which the figures of all can be compared or not."""
    line = "Ranked by the ELBO on validation images; test figures are sums over pixels, averaged over images."
    if are_alike:
        return line
    return f"{line} Those of different images or losses cannot be compared, and are ranked apart from each other."


def number_of(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The names of settings without where they are, as far as they stay apart."""
    last = [name.rpartition(".")[2] for name in names]
    return {
        name: short if last.count(short) == 1 else ".".join(name.split(".")[-2:])
        for name, short in zip(names, last, strict=True)
    }


STUDY = "search"
