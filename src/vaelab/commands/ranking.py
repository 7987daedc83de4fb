"""The table of several evaluations: printed, and written as CSV and Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from vaelab.runs.evaluation_table import LOG_LIKELIHOOD, SETTINGS, rows_of, table_of
from vaelab.runs.ranked_table import RankedTable
from vaelab.runtime import console
from vaelab.runtime.files import write_text


def write_results(evaluations: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str], folder: Path) -> None:
    """Prints the table of several evaluations, and writes it as ``results.csv`` and ``results.md``.

    Args:
        evaluations: name of the run to the contents of its ``evaluation.json``.
        failed: name of a run that could not be evaluated to the reason.
        folder: of the files.
    """
    table = table_of(rows_of(evaluations))
    if not table.rows:
        return
    table.write_csv(folder / "results.csv")
    failures = [f"{name} could not be evaluated: {reason}" for name, reason in failed.items()]
    lines = [*table.markdown(), "", *(f"- {line}" for line in failures)]
    write_text("\n".join(lines).rstrip() + "\n", folder / "results.md")
    _print(table)
    for line in failures:
        console.print_line(escape(line))
    console.print_line(f"all metrics: {console.short_path(folder)} (results.csv, results.md)")


def _print(table: RankedTable) -> None:
    """Prints the bounds. A setting that all runs share is printed once, below the table."""
    names = [column.name for column in table.columns]
    values = {name: {str(row[name]) for row in table.rows} for name in SETTINGS}
    shared = [name for name in SETTINGS if len(values[name]) == 1]
    details = [name for name in names if "/" in name and not name.startswith("test/")]
    has_log_likelihood = any(LOG_LIKELIHOOD in name for name in names)
    table.print([*shared, *details], ["test/elbo"] if has_log_likelihood else [])
    texts = ", ".join(f"{name} {values[name].pop()}" for name in shared)
    console.print_line(escape(f"on test images{f'; the same in all: {texts}' if texts else ''}"))
