"""How figures are named, labelled with their unit, printed and written."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import get_console
from rich.table import Table
from rich.text import Text

_UNITLESS = ("mmd",)
# Divergences between latents are in nats whatever the likelihood is; what is summed with a mere loss is not.
_DIVERGENCES = ("kl", "mutual_information", "total_correlation", "dimension_kl")


def unit(normalized: bool) -> str:
    """What the terms of a bound are counted in, per image."""
    return "nats" if normalized else "not nats"


# What was said, for the run's log file alone: configs/hydra/base.yaml gives this logger no other handler.
_said = logging.getLogger("vaelab.said")


def say(text: str) -> None:
    """Prints a line for people, in one piece, since a path that is broken in two cannot be copied, and notes it."""
    get_console().print(text, highlight=False, soft_wrap=True)
    note(Text.from_markup(text).plain)


def note(text: str) -> None:
    """Puts a line into the run's log file."""
    _said.info(text)


def print_figures(title: str, figures: Mapping[str, Any], normalized: bool) -> None:
    """Prints a table of the figures that are numbers; the terms of the bound carry their unit.

    Args:
        title: above the table.
        figures: name to value.
        normalized: whether the likelihood is one for the images it was given.
    """
    table = Table(show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(justify="left", style="dim")
    rows = []
    for name, value in figures.items():
        if not isinstance(value, (int, float)):
            continue
        is_term = isinstance(value, float) and name.startswith(("val/", "test/", "score/"))
        term = name.partition("/")[2]
        unitless = term in _UNITLESS or "auroc" in term
        label = "" if not is_term or unitless else "nats" if term in _DIVERGENCES else unit(normalized)
        rows.append((name, f"{value:,.3f}" if is_term else f"{value:,}", label))
    say(f"[bold]{title}[/bold]")
    for row in rows:
        table.add_row(*row)
        note(" ".join(row).rstrip())
    get_console().print(table)
    if not normalized:
        say("[dim]Not nats: this loss is no likelihood of these images. Compare its figures with its own alone.[/dim]")


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
