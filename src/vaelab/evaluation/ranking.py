"""A folder of runs: which they are, and the table that their evaluations come to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import get_console
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from vaelab import reporting
from vaelab.files import write_csv, write_text

_DEPTH = 3  # folders below the one that was named
_BEST = "log_likelihood"


def runs_in(folder: str | Path) -> dict[str, Path]:
    """The runs in a folder that is not one itself, by their names in it; none of anything else."""
    root = Path(folder).expanduser()
    if str(folder) == "latest" or not root.is_dir() or (root / "checkpoints").is_dir():
        return {}
    found = (path.parent for depth in range(1, _DEPTH + 1) for path in root.glob("*/" * depth + "checkpoints"))
    runs = {str(path.relative_to(root)): path for path in found if any(path.glob("checkpoints/*.ckpt"))}
    return dict(sorted(runs.items(), key=lambda run: [(len(part), part) for part in run[0].split("/")]))


def rows_of(evaluations: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each evaluation: those of one kind together, of which figures can be compared, the best first."""
    rows = []
    for name, evaluation in evaluations.items():
        protocol, figures = evaluation["protocol"], evaluation["figures"]
        values = {key: figure["value"] for key, figure in figures.items()}
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
            row |= {key.removeprefix("likelihood/"): values[key], "standard error": figures[key]["standard_error"]}
        row |= {
            key: values[key]
            for key in values
            if key.partition("/")[0] in ("latents", "reconstructions", "samples") or key.startswith("scores/auroc")
        }
        row["unit"] = protocol["unit"]
        kind = json.dumps([row["data"], loss, protocol["likelihood"], protocol["conditional"], protocol["image_shape"]])
        rows.append((kind, -(values[best[-1]] if best else values.get("test/elbo", 0.0)), row))
    return [row for *_, row in sorted(rows, key=lambda each: each[:2])]


def conclude(evaluations: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str], folder: Path) -> None:
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
    few = [name for name in names if "/" not in name or name.startswith("test/")][:7]  # what a terminal has room for
    table = Table(box=SIMPLE_HEAD)
    for name in few:
        table.add_column(escape(name), no_wrap=name == "run")
    for row in rows:
        table.add_row(*(escape(_shown(row.get(name))) for name in few))
    get_console().print(table)
    for name, reason in failed.items():
        reporting.say(escape(f"{name} could not be evaluated: {reason}"))
    reporting.say(f"every figure: {reporting.shown_path(folder)} (results.csv, results.md)")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.{4 if abs(value) < 1 else 2}f}" if isinstance(value, float) else str(value)
