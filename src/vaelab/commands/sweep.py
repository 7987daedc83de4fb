"""What a sweep comes to: one ranked table of its jobs, and the figures that fit what was swept."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import get_console
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from vaelab.runs.sweep_folder import TERMS, Job, caption, number_of, read, short_names, swept
from vaelab.runtime import console
from vaelab.runtime.files import write_csv, write_text

_FIGURES = (*TERMS, "job", "epochs", "seconds")
MOST_LINES = 8  # in a chart of curves
_RATES = ("latent_dim", "beta", "capacity", "free_nats", "kl_weight", "mmd_weight")  # what trades KL for reconstruction


def write_results(folder: Path) -> None:
    """Prints a sweep's table, and leaves it in its folder as ``results.csv``, ``results.md`` and pictures."""
    jobs = read(folder)
    if not jobs:
        return
    names = swept(jobs)
    rows = [_row(job, names) for job in jobs]
    write_csv(list(rows[0]), rows, folder / "results.csv")
    are_alike = len({job.kind for job in jobs if job.metrics}) <= 1
    write_text(_markdown(rows, folder, are_alike), folder / "results.md")
    _print(rows, are_alike)
    pictures = _plot_charts(jobs, names, folder)
    written = ["results.csv", "results.md", *pictures]
    if not any(job.report is False for job in jobs):
        from vaelab.runtime.console import best_effort  # with torch
        from vaelab.visualization import report

        with best_effort(report.NAME):
            written.append(report.write(folder).name)
    console.print_line(f"the sweep: {console.short_path(folder)} ({', '.join(written)})")
    if jobs[0].metrics and jobs[0].wandb:
        from vaelab.training.loggers import log_sweep

        try:
            log_sweep(folder, jobs[0].wandb, rows, folder / str(jobs[0].number), [folder / name for name in pictures])
        except Exception as error:  # the sweep is complete
            console.print_line(f"W&B was not told of the sweep: {str(error).strip().partition(chr(10))[0]}")


def _row(job: Job, names: Sequence[str]) -> dict[str, Any]:
    return {
        "rank": job.rank or "",
        "job": job.number,
        **{name: job.overrides.get(name, "") for name in names},
        **{term: "" if job.metrics.get(term) is None else job.metrics[term] for term in TERMS},
        "unit": job.metrics.get("unit", ""),
        "epochs": job.metrics.get("epochs", ""),
        "seconds": job.metrics.get("seconds", ""),
        "status": f"{job.status}: {job.failure}" if job.failure else job.status,
    }


def _shown(value: Any) -> str:
    if isinstance(value, str) and (number := number_of(value)) is not None and len(value) > 8:
        return f"{number:.4g}"  # of a search
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


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
            console.print_line(escape(f"job {row['job']}: {row['status']}"))
    console.print_line(f"[dim]{caption(are_alike)}[/dim]")


def _plot_charts(jobs: Sequence[Job], names: Sequence[str], folder: Path) -> list[str]:
    """Writes the pictures that fit what was swept; their names."""
    from vaelab.visualization import plots  # with matplotlib, which takes a second

    done = [job for job in jobs if all(isinstance(job.metrics.get(term), float) for term in TERMS)]
    if len({job.kind for job in done}) != 1 or len(done) < 2:
        return []
    unit = done[0].metrics["unit"]
    short = short_names(names)
    varied = [name for name in names if name != "seed" and len({job.overrides.get(name) for job in done}) > 1]
    numeric = [name for name in varied if all(number_of(job.overrides.get(name)) is not None for job in done)]
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
        best = [job.metrics["val/elbo"] for job in tried]
        pictures["slices"] = plots.slices(values, best, "val/elbo", unit)
    elif across:
        curves = {
            label: {x: [{term: job.metrics[term] for term in TERMS} for job in same] for x, same in points.items()}
            for label, points in lines.items()
        }
        pictures["curves"] = plots.curves_over(short[across], curves, title(across), TERMS, unit)
        if len(numeric) == 2:
            cells: dict[tuple[float, float], list[float]] = {}
            for job in done:
                where = float(job.overrides[numeric[0]]), float(job.overrides[numeric[1]])
                cells.setdefault(where, []).append(job.metrics["test/elbo"])
            label = f"test/elbo ({unit}, per image)"
            pictures["heat_map"] = plots.heat_map(short[numeric[0]], short[numeric[1]], cells, label)
    # What trades the rate for distortion is what joins the points; latent dimensions only where there is nothing else.
    trading = [name for name in numeric if name.rpartition(".")[2] in _RATES]
    if trading and not is_search:
        along = min(trading, key=lambda name: name == "latent_dim")
        points = {
            label: [
                (f"{x:g}", job.metrics["test/kl"], job.metrics["test/reconstruction"])
                for x, same in points.items()
                for job in same
            ]
            for label, points in lines_over(along).items()
        }
        pictures["rate_distortion"] = plots.rate_distortion(points, title(along), short[along], unit)
    for name, picture in pictures.items():
        plots.save_png(picture, folder / f"{name}.png")
    return [f"{name}.png" for name in pictures]


def _sortable(text: str | None) -> tuple[float, str]:
    number = number_of(text)
    return (0.0, text or "") if number is None else (number, "")
