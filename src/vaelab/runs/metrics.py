"""How figures are named, labelled with their unit, printed and written."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import get_console
from rich.markup import escape
from rich.table import Table

from vaelab.runtime.console import log_line, print_line

NOT_NATS = "Not nats: this loss is no likelihood of these images. Compare its figures with its own alone."
_UNITLESS = ("mmd",)
# Divergences between latents are in nats whatever the likelihood is; what is summed with a mere loss is not.
_DIVERGENCES = ("kl", "mutual_information", "total_correlation", "dimension_kl")


class Metric(NamedTuple):
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


def print_metrics(title: str, figures: Mapping[str, Any], normalized: bool) -> None:
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


def formatted(figure: Metric) -> tuple[str, str]:
    """A figure and its standard error as they are read; "" where it has none."""
    digits = 0 if isinstance(figure.value, int) else 4 if abs(figure.value) < 1 else 3
    error = "" if figure.standard_error is None else f"± {figure.standard_error:,.{digits}f}"
    return f"{figure.value:,.{digits}f}", error


def print_measurements(title: str, figures: Mapping[str, Metric], remarks: Sequence[str], normalized: bool) -> None:
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
        print_line(f"[dim]{escape(remark)}[/dim]")


def _print_table(title: str, sections: Sequence[Sequence[Sequence[str]]], normalized: bool) -> None:
    table = Table(show_header=False)
    table.add_column(justify="left", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="left", style="dim")
    print_line(f"[bold]{title}[/bold]")
    for rows in sections:
        for row in rows:
            table.add_row(*row)
            log_line(" ".join(row).rstrip())
        table.add_section()
    get_console().print(table)
    if not normalized:
        print_line(f"[dim]{NOT_NATS}[/dim]")
