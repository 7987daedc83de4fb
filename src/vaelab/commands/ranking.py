"""A folder of runs: which they are, and the table that their evaluations come to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import get_console
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from vaelab.runtime import console
from vaelab.runtime.files import write_csv, write_text

_BEST = "log_likelihood"
_TEXTS = ("run", "data", "loss", "unit")


def rows_of(evaluations: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each evaluation: those of one kind together, of which figures can be compared, the best first."""
    rows = []
    for name, evaluation in evaluations.items():
        protocol, metrics = evaluation["protocol"], evaluation["metrics"]
        values = {key: metric["value"] for key, metric in metrics.items()}
        best = [key for key in values if key.startswith(f"likelihood/test/{_BEST}")]
        loss = protocol["choices"].get("loss", "")
        row = {
            "run": name,
            "data": f"{protocol['data']}, {protocol['binarize']}",
            "loss": f"{loss}, given the class" if protocol["conditional"] else loss,
            "test/elbo": values.get("test/elbo"),
        }
        if best:
            key = best[-1]
            row |= {key.removeprefix("likelihood/"): values[key], "standard error": metrics[key]["standard_error"]}
        row |= {
            key: values[key]
            for key in values
            if key.partition("/")[0] in ("latents", "reconstructions", "samples") or key.startswith("scores/auroc")
        }
        row["unit"] = protocol["unit"]
        rows.append(
            (json.dumps(protocol["comparable"]), -(values[best[-1]] if best else values.get("test/elbo", 0.0)), row)
        )
    return [row for *_, row in sorted(rows, key=lambda each: each[:2])]


def write_results(evaluations: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str], folder: Path) -> None:
    """Prints the table of several evaluations, and writes it as ``results.csv`` and ``results.md``."""
    rows = rows_of(evaluations)
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(names, rows, folder / "results.csv")
    shown = [[_shown(row.get(name)) for name in names] for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in [names, ["---"] * len(names), *shown]]
    lines += ["", *(f"- {name} could not be evaluated: {reason}" for name, reason in failed.items())]
    write_text("\n".join(lines).rstrip() + "\n", folder / "results.md")
    _print(rows, [name for name in names if "/" not in name or name.startswith("test/")])
    for name, reason in failed.items():
        console.print_line(escape(f"{name} could not be evaluated: {reason}"))
    console.print_line(f"every figure: {console.short_path(folder)} (results.csv, results.md)")


def _print(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """The table as a terminal has room for it: what is the same of all stands below, and figures are whole."""
    shown = {name: [_shown(row.get(name)) for row in rows] for name in names}
    same = [name for name in ("data", "loss", "unit") if name in shown and len(set(shown[name])) == 1]
    names = [name for name in names if name not in same]
    heads = {name: name.removeprefix("test/").replace(", ", ",\n").replace("standard error", "±") for name in names}
    width = {name: max(map(len, [*shown[name], *heads[name].split("\n")])) for name in names}
    if sum(width.values()) + 2 * len(names) + 2 > get_console().width and any(_BEST in name for name in names):
        names.remove("test/elbo")
    table = Table(box=SIMPLE_HEAD)
    for name in names:
        is_text = name in _TEXTS
        words = max(len(word) for cell in shown[name] for word in cell.split(" "))
        table.add_column(
            escape(heads[name]),
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
            min_width=words if is_text and name != "run" else None,
        )
    for cells in zip(*(shown[name] for name in names), strict=True):
        table.add_row(*map(escape, cells))
    get_console().print(table)
    everywhere = f"; the same in all: {', '.join(f'{name} {shown[name][0]}' for name in same)}" if same else ""
    console.print_line(escape(f"of test images{everywhere}"))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.{4 if abs(value) < 1 else 2}f}" if isinstance(value, float) else str(value)
