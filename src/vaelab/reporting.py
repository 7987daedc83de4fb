"""How figures are named, labelled with their unit, printed and written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import get_console
from rich.table import Table


def unit(normalized: bool) -> str:
    """What the terms of a bound are counted in, per image."""
    return "nats" if normalized else "no likelihood"


def print_figures(title: str, figures: Mapping[str, Any], normalized: bool) -> None:
    """Prints a table of figures; the terms of the bound carry their unit.

    Args:
        title: above the table.
        figures: name to value.
        normalized: whether the likelihood is one for the images it was given.
    """
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in figures.items():
        terms = name.startswith(("val/", "test/"))
        shown = f"{value:,.3f}" if isinstance(value, float) and terms else f"{value:,}" if _is_number(value) else str(value)
        # The KL divergence is in nats whatever the likelihood is; what is summed with a mere loss is not.
        label = ("nats" if name.endswith("/kl") else unit(normalized)) if terms else ""
        table.add_row(name, shown, label)
    console = get_console()
    console.print(table)
    if not normalized:
        console.print(
            "Not a likelihood of these images: the figures compare models with this very loss, and nothing else.",
            style="dim",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Writes values as JSON, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(partial, path)


def shown_path(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path.resolve())
