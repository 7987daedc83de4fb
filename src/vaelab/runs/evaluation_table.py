"""The ranked table of the evaluations of several runs."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaelab.runs.foreign_files import LARGEST_CSV, lies_in, read_bytes
from vaelab.runs.ranked_table import Column, RankedTable, number_of, rounded

LOG_LIKELIHOOD = "log_likelihood"
SETTINGS = ("data", "loss", "unit")
_TEXTS = ("run", *SETTINGS)


def rows_of(evaluations: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each evaluation, grouped by what makes metrics comparable, the best first in each group.

    Args:
        evaluations: name of the run to the contents of its ``evaluation.json``.
    """
    rows = []
    for name, evaluation in evaluations.items():
        protocol, metrics = evaluation["protocol"], evaluation["metrics"]
        values = {key: metric["value"] for key, metric in metrics.items()}
        estimates = [key for key in values if key.startswith(f"likelihood/test/{LOG_LIKELIHOOD}")]
        loss = protocol["choices"].get("loss", "")
        limit = protocol["comparable"].get("data.limit")
        row = {
            "run": name,
            "data": f"{protocol['data']}, {protocol['binarize']}{'' if limit is None else f', limit {limit}'}",
            "loss": f"{loss}, given the class" if protocol["conditional"] else loss,
            "test/elbo": values.get("test/elbo"),
        }
        if estimates:
            key = estimates[-1]  # of the most samples
            row |= {key.removeprefix("likelihood/"): values[key], "standard error": metrics[key]["standard_error"]}
        row |= {
            key: values[key]
            for key in values
            if key.partition("/")[0] in ("latents", "reconstructions", "samples") or key.startswith("scores/auroc")
        }
        row["unit"] = protocol["unit"]
        bound = values[estimates[-1]] if estimates else values.get("test/elbo", 0.0)
        rows.append((json.dumps(protocol["comparable"]), -bound, row))
    return [row for *_, row in sorted(rows, key=lambda each: each[:2])]


def table_of(rows: Sequence[Mapping[str, Any]]) -> RankedTable:
    """The table of these rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return RankedTable([_column(name) for name in names], rows)


def read(path: Path) -> RankedTable:
    """The table that was written as CSV; damaged rows are left out."""
    text = read_bytes(path, LARGEST_CSV).decode(errors="replace") if lies_in(path, path.parent) else ""
    try:
        rows = [row for row in csv.DictReader(io.StringIO(text, newline="")) if row.get("run") and _is_whole(row)]
    except csv.Error:  # e.g. a cell of a megabyte
        rows = []
    return table_of([{name: _parsed(name, cell) for name, cell in row.items()} for row in rows])


def _is_whole(row: Mapping[Any, Any]) -> bool:
    return all(isinstance(text, str) for pair in row.items() for text in pair)


def _column(name: str) -> Column:
    if name in _TEXTS:
        return Column(name, breaks="cells" if name == "run" else "words")
    heading = name.removeprefix("test/").replace(", ", ",\n").replace("standard error", "±")
    return Column(name, heading, is_metric=True, format=_metric)


def _metric(value: Any) -> str:
    return f"{value:,.4f}" if isinstance(value, float) and abs(value) < 1 else rounded(value)


def _parsed(name: str, text: str) -> int | float | str:
    number = None if name in _TEXTS else number_of(text)
    return text if number is None else int(text) if text.lstrip("-").isdecimal() else number
