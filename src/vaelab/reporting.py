"""How figures are named, labelled with their unit, printed and written."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import get_console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from vaelab import ranks
from vaelab.files import write_text

NOT_NATS = "Not nats: this loss is no likelihood of these images. Compare its figures with its own alone."
_UNITLESS = ("mmd",)
# Divergences between latents are in nats whatever the likelihood is; what is summed with a mere loss is not.
_DIVERGENCES = ("kl", "mutual_information", "total_correlation", "dimension_kl")


class Figure(NamedTuple):
    """One figure.

    Attributes:
        value: a number.
        unit: what it counts; "" for a pure number.
        standard_error: of the mean over images, or whatever ``note`` says.
        note: how it was come by.
    """

    value: float
    unit: str = ""
    standard_error: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """What is known of it, by name."""
        return {name: value for name, value in self._asdict().items() if value not in (None, "")}


def unit(normalized: bool) -> str:
    """What the terms of a bound are counted in, per image."""
    return "nats" if normalized else "not nats"


label = ""  # before every line that is said: whose it is, where several processes share a terminal

# What was said, for the run's log file alone: configs/hydra/base.yaml gives this logger no other handler.
_said = logging.getLogger("vaelab.said")
_said.propagate = False


def say(text: str) -> None:
    """Prints a line for people, in one piece, since a path that is broken in two cannot be copied, and notes it.

    Of several processes the first one prints it.
    """
    if ranks.is_first():
        get_console().print(label + text.replace("\n", f"\n{label}"), highlight=False, soft_wrap=True)
    note(Text.from_markup(text).plain)


def note(text: str) -> None:
    """Puts a line into the run's log file."""
    _said.info(text)


def term_unit(name: str, normalized: bool) -> str:
    """What a figure of a split, such as ``test/elbo``, is counted in; "" for what is no term of a bound.

    Args:
        name: the figure's.
        normalized: whether the likelihood is one for the images it was given.
    """
    split, _, term = name.partition("/")
    if split not in ("val", "test") or term in _UNITLESS:
        return ""
    if term == "bits_per_dim":
        return "bits/dim"
    if term == "loss" and normalized:
        return ""  # a bound, or one with weights and penalties, which are in no unit
    return "nats" if term in _DIVERGENCES else unit(normalized)


def print_figures(title: str, figures: Mapping[str, Any], normalized: bool) -> None:
    """Prints a table of the figures that are numbers; the terms of the bound carry their unit.

    Args:
        title: above the table.
        figures: name to value.
        normalized: whether the likelihood is one for the images it was given.
    """
    rows = []
    for name, value in figures.items():
        if isinstance(value, (int, float)):
            is_term = isinstance(value, float) and name.startswith(("val/", "test/"))
            rows.append([name, f"{value:,.3f}" if is_term else f"{value:,}", term_unit(name, normalized)])
    _print_table(title, [rows], normalized)


def formatted(figure: Figure) -> tuple[str, str]:
    """A figure and its standard error as they are read; "" where it has none."""
    digits = 0 if isinstance(figure.value, int) else 4 if abs(figure.value) < 1 else 3
    error = "" if figure.standard_error is None else f"± {figure.standard_error:,.{digits}f}"
    return f"{figure.value:,.{digits}f}", error


def print_measured(title: str, figures: Mapping[str, Figure], remarks: Sequence[str], normalized: bool) -> None:
    """Prints figures with their standard errors and units, a section for each measure.

    Args:
        title: above the table.
        figures: by name, the measure before the first slash.
        remarks: below the table.
        normalized: whether the loss is a likelihood of the images.
    """
    sections: dict[str, list[list[str]]] = {}
    for name, figure in figures.items():
        value, error = formatted(figure)
        row = [name, value, f"{error} {figure.unit}".strip()]
        sections.setdefault(name.partition("/")[0], []).append(row)
    _print_table(title, list(sections.values()), normalized)
    for remark in remarks:
        say(f"[dim]{escape(remark)}[/dim]")


def _print_table(title: str, sections: Sequence[Sequence[Sequence[str]]], normalized: bool) -> None:
    table = Table(show_header=False)
    table.add_column(justify="left", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="left", style="dim")
    say(f"[bold]{title}[/bold]")
    for rows in sections:
        for row in rows:
            table.add_row(*row)
            note(" ".join(row).rstrip())
        table.add_section()
    get_console().print(table)
    if not normalized:
        say(f"[dim]{NOT_NATS}[/dim]")


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Writes values as JSON, whole or not at all."""
    write_text(json.dumps(valid(values), indent=2, allow_nan=False) + "\n", path)


def valid(value: Any) -> Any:
    """The same in what JSON has: no number for what is none."""
    if isinstance(value, Mapping):
        return {key: valid(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [valid(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown_path(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path.resolve())
