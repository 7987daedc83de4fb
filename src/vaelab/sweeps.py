"""What a sweep comes to: one ranked table of its jobs, and the figures that fit what was swept."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich import get_console
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from vaelab import comparable, reporting
from vaelab.files import write_csv, write_text
from vaelab.paths import FAILURE

TERMS = ("val/elbo", "test/elbo", "test/reconstruction", "test/kl")
_FIGURES = (*TERMS, "job", "epochs", "seconds")
MOST_LINES = 8  # in a chart of curves
_RATES = ("latent_dim", "beta", "capacity", "free_nats", "kl_weight", "mmd_weight")  # what trades KL for reconstruction


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
            job.kind = json.dumps(comparable.common(config, job.figures.get("unit") == "nats"))
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


def conclude(folder: Path) -> None:
    """Prints a sweep's table, and leaves it in its folder as ``results.csv``, ``results.md`` and pictures."""
    jobs = read(folder)
    if not jobs:
        return
    names = swept(jobs)
    rows = [_row(job, names) for job in jobs]
    write_csv(list(rows[0]), rows, folder / "results.csv")
    are_alike = len({job.kind for job in jobs if job.figures}) <= 1
    write_text(_markdown(rows, folder, are_alike), folder / "results.md")
    _print(rows, are_alike)
    pictures = _draw(jobs, names, folder)
    written = ["results.csv", "results.md", *pictures]
    if not any(job.report is False for job in jobs):
        from vaelab import report
        from vaelab.callbacks.drawing import excused  # with torch

        with excused(report.NAME):
            written.append(report.write(folder).name)
    reporting.say(f"the sweep: {reporting.shown_path(folder)} ({', '.join(written)})")
    if jobs[0].figures and jobs[0].wandb:
        from vaelab.loggers import log_sweep

        try:
            log_sweep(folder, jobs[0].wandb, rows, folder / str(jobs[0].number), [folder / name for name in pictures])
        except Exception as error:  # the sweep is complete
            reporting.say(f"W&B was not told of the sweep: {str(error).strip().partition(chr(10))[0]}")


def _row(job: Job, names: Sequence[str]) -> dict[str, Any]:
    return {
        "rank": job.rank or "",
        "job": job.number,
        **{name: job.overrides.get(name, "") for name in names},
        **{term: "" if job.figures.get(term) is None else job.figures[term] for term in TERMS},
        "unit": job.figures.get("unit", ""),
        "epochs": job.figures.get("epochs", ""),
        "seconds": job.figures.get("seconds", ""),
        "status": f"{job.status}: {job.failure}" if job.failure else job.status,
    }


def _shown(value: Any) -> str:
    if isinstance(value, str) and (number := _number(value)) is not None and len(value) > 8:
        return f"{number:.4g}"  # of a search
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def caption(are_alike: bool) -> str:
    """What stands below a table of jobs, of which the figures of all can be compared or not."""
    line = "Ranked by the ELBO on validation images; test figures are sums over pixels, averaged over images."
    if are_alike:
        return line
    return f"{line} Those of different images or losses cannot be compared, and are ranked apart from each other."


def _markdown(rows: Sequence[dict[str, Any]], folder: Path, are_alike: bool) -> str:
    lines = [
        f"# {folder.name}",
        "",
        caption(are_alike),
        "",
        f"| {' | '.join(rows[0])} |",
        "|---" * len(rows[0]) + "|",
    ]
    for row in rows:
        cells = (_shown(value).replace("|", "\\|") for value in row.values())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _print(rows: Sequence[dict[str, Any]], are_alike: bool) -> None:
    """The table as a terminal has room for it: what went wrong stands below."""
    same_epochs = len({row["epochs"] for row in rows if row["rank"]}) <= 1
    left_out = ["rank", "test/reconstruction", "unit", "status", *(["epochs"] if same_epochs else [])]
    short = {**short_names(list(rows[0])), **{name: name for name in _FIGURES}}
    # Where there is no room for all, names are broken in two and some figures left out, but values are whole.
    width = {name: max(len(_shown(row[name])) for row in rows) for name in rows[0]}
    width.update({name: max(width[name], -(-len(short[name]) // (1 if name in _FIGURES else 2))) for name in width})
    for name in ("seconds", "test/kl", "epochs", "test/elbo"):
        if sum(width[name] + 3 for name in rows[0] if name not in left_out) >= get_console().width:
            left_out.append(name)
    names = [name for name in rows[0] if name not in left_out]
    table = Table(box=SIMPLE_HEAD)
    for name in names:
        if name in _FIGURES:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(escape(short[name]), overflow="fold", min_width=width[name])
    for row in rows:
        style = None if row["rank"] else "dim"
        table.add_row(*(escape(_shown(row[name])) for name in names), style=style)
    get_console().print(table)
    for row in rows:
        if not row["rank"]:
            reporting.say(escape(f"job {row['job']}: {row['status']}"))
    reporting.say(f"[dim]{caption(are_alike)}[/dim]")


def _number(text: str | None) -> float | None:
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


def _draw(jobs: Sequence[Job], names: Sequence[str], folder: Path) -> list[str]:
    """Writes the pictures that fit what was swept; their names."""
    from vaelab import figures  # with matplotlib, which takes a second

    done = [job for job in jobs if all(isinstance(job.figures.get(term), float) for term in TERMS)]
    if len({job.kind for job in done}) != 1 or len(done) < 2:
        return []
    unit = done[0].figures["unit"]
    short = short_names(names)
    varied = [name for name in names if name != "seed" and len({job.overrides.get(name) for job in done}) > 1]
    numeric = [name for name in varied if all(_number(job.overrides.get(name)) is not None for job in done)]
    pictures = {}

    def lines_over(along: str) -> dict[str, dict[float, list[Job]]]:
        """The jobs by whatever else was swept, and by this number."""
        others = [name for name in varied if name != along]
        lines: dict[str, dict[float, list[Job]]] = {}
        for job in sorted(done, key=lambda job: [_sortable(job.overrides.get(name)) for name in [*others, along]]):
            label = " ".join(_shown(job.overrides.get(name, "")) for name in others)
            lines.setdefault(label, {}).setdefault(float(job.overrides[along]), []).append(job)
        return lines

    def title(along: str) -> str:
        return " ".join(short[name] for name in varied if name != along)

    across = max(numeric, key=lambda name: len({job.overrides[name] for job in done}), default="")
    lines = lines_over(across) if across else {}
    # Of a grid most combinations are there; a search leaves out nearly all, and draws no number twice.
    combinations = math.prod(len({job.overrides.get(name) for job in done}) for name in varied)
    is_drawn = len(varied) > 1 and len(done) == len({job.overrides.get(across) for job in done}) > 2
    is_search = across and (combinations > 2 * len(done) or is_drawn or len(lines) > MOST_LINES)
    if is_search:
        tried = sorted(done, key=lambda job: job.number)
        values = {
            short[name]: [
                float(job.overrides[name]) if name in numeric else job.overrides.get(name, "") for job in tried
            ]
            for name in varied
        }
        best = [job.figures["val/elbo"] for job in tried]
        pictures["slices"] = figures.slices(values, best, "val/elbo", unit)
    elif across:
        curves = {
            label: {x: [{term: job.figures[term] for term in TERMS} for job in same] for x, same in points.items()}
            for label, points in lines.items()
        }
        pictures["curves"] = figures.curves_over(short[across], curves, title(across), TERMS, unit)
        if len(numeric) == 2:
            cells: dict[tuple[float, float], list[float]] = {}
            for job in done:
                where = float(job.overrides[numeric[0]]), float(job.overrides[numeric[1]])
                cells.setdefault(where, []).append(job.figures["test/elbo"])
            label = f"test/elbo ({unit}, per image)"
            pictures["heat_map"] = figures.heat_map(short[numeric[0]], short[numeric[1]], cells, label)
    # What trades the rate for distortion is what joins the points; latent dimensions only where there is nothing else.
    trading = [name for name in numeric if name.rpartition(".")[2] in _RATES]
    if trading and not is_search:
        along = min(trading, key=lambda name: name == "latent_dim")
        points = {
            label: [
                (f"{x:g}", job.figures["test/kl"], job.figures["test/reconstruction"])
                for x, same in points.items()
                for job in same
            ]
            for label, points in lines_over(along).items()
        }
        pictures["rate_distortion"] = figures.rate_distortion(points, title(along), short[along], unit)
    for name, picture in pictures.items():
        figures.save_png(picture, folder / f"{name}.png")
    return [f"{name}.png" for name in pictures]


def _sortable(text: str | None) -> tuple[float, str]:
    number = _number(text)
    return (0.0, text or "") if number is None else (number, "")
