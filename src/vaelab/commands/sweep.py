"""The results of a sweep: the ranked table of its jobs, charts and a report."""

from pathlib import Path

from rich.markup import escape

from vaelab.commands.sweep_charts import write_charts
from vaelab.runs.ranked_table import RankedTable
from vaelab.runs.sweep_folder import caption, read, swept, table_of
from vaelab.runtime import console, signals
from vaelab.runtime.files import write_text

_OMITTED = ("rank", "test/reconstruction", "unit", "status", "folder")  # from the terminal
_OPTIONAL = ("seconds", "test/kl", "epochs", "test/elbo")  # left out first where the terminal is narrow


def write_results(folder: Path) -> None:
    """Prints the table of a sweep, and writes ``results.csv``, ``results.md``, charts and ``report.html``."""
    jobs = read(folder)
    if not jobs:
        return
    names = swept(jobs)
    table = table_of(jobs, names)
    table.write_csv(folder / "results.csv")
    line = caption(len({job.kind for job in jobs if job.metrics}) <= 1)
    write_text("\n".join([f"# {folder.name}", "", line, "", *table.markdown()]) + "\n", folder / "results.md")
    _print(table, line)
    charts = [] if signals.asked else write_charts(jobs, names, folder)  # a sweep that is to end does so soon
    written = ["results.csv", "results.md", *charts]
    if not signals.asked and not any(job.report is False for job in jobs):
        from vaelab.runtime.console import best_effort  # here, because it imports torch
        from vaelab.visualization import report

        with best_effort(report.NAME):
            written.append(report.write(folder).name)
    console.print_line(f"sweep folder: {console.short_path(folder)} ({', '.join(written)})")
    if jobs[0].metrics and jobs[0].wandb and not signals.asked:
        from vaelab.training.loggers import log_sweep

        try:
            log_sweep(folder, jobs[0].wandb, table.rows, jobs[0].folder, [folder / name for name in charts])
        except Exception as error:  # a failed upload must not end a sweep that is complete
            console.print_line(f"the sweep was not logged to W&B: {str(error).strip().partition(chr(10))[0]}")


def _print(table: RankedTable, line: str) -> None:
    """Prints the table, the reasons of failed jobs, and this line."""
    epochs = {row["epochs"] for row in table.rows if row["rank"]}
    omitted = [*_OMITTED, *(["epochs"] if len(epochs) <= 1 else [])]
    table.print(omitted, _OPTIONAL, [not row["rank"] for row in table.rows])
    for row in table.rows:
        if not row["rank"]:
            console.print_line(escape(f"job {row['job']}: {row['status']}"))
    console.print_line(f"[dim]{line}[/dim]")
