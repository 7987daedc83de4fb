"""Metrics: their units, and how they are printed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import get_console
from rich.markup import escape
from rich.table import Table

from vaelab.runtime.console import log_line, print_line

NATS, NOT_NATS = "nats", "not nats"
NOT_NATS_NOTE = "Not nats: this loss is not a likelihood of these images. Compare its metrics only with this same loss."
_UNITLESS = ("mmd",)
# Divergences between latents are in nats for any likelihood. A sum with a mere loss is not.
_DIVERGENCES = ("kl", "mutual_information", "total_correlation", "dimension_kl")


class Metric(NamedTuple):
    """One metric.

    Attributes:
        value: a number.
        unit: of the value; empty for a pure number.
        standard_error: of the mean over images, or as ``note`` says.
        note: how it was measured, on which images.
    """

    value: float
    unit: str = ""
    standard_error: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The attributes that are set, by name."""
        return {name: value for name, value in self._asdict().items() if value not in (None, "")}


def bound_unit(is_normalized: bool) -> str:
    """The unit of the terms of a bound, per image.

    Args:
        is_normalized: whether the loss is a likelihood of its images.
    """
    return NATS if is_normalized else NOT_NATS


def term_unit(name: str, unit: str) -> str:
    """The unit of a metric of a split, such as ``test/elbo``; empty if it is not a term of a bound.

    Args:
        name: of the metric.
        unit: of the bound, see :func:`bound_unit`.
    """
    split, _, term = name.partition("/")
    if split not in ("val", "test") or term in _UNITLESS:
        return ""
    if term == "bits_per_dim":
        return "bits/dim"
    if term == "loss" and unit == NATS:
        return ""  # the loss may contain weights and penalties, which have no unit
    return NATS if term in _DIVERGENCES else unit


def print_metrics(title: str, metrics: Mapping[str, Any], unit: str) -> None:
    """Prints a table of the metrics that are numbers, with the units of the terms of the bound.

    Args:
        title: above the table.
        metrics: name to value.
        unit: of the bound.
    """
    rows = []
    for name, value in metrics.items():
        if isinstance(value, (int, float)):
            is_term = isinstance(value, float) and name.startswith(("val/", "test/"))
            rows.append([name, f"{value:,.3f}" if is_term else f"{value:,}", term_unit(name, unit)])
    _print_table(title, [rows], unit)


def formatted(metric: Metric) -> tuple[str, str]:
    """The value of a metric and its standard error, as text; the error may be empty."""
    digits = 0 if isinstance(metric.value, int) else 4 if abs(metric.value) < 1 else 3
    error = "" if metric.standard_error is None else f"± {metric.standard_error:,.{digits}f}"
    return f"{metric.value:,.{digits}f}", error


def print_measurements(title: str, metrics: Mapping[str, Metric], remarks: Sequence[str], unit: str) -> None:
    """Prints metrics with their standard errors and units, a section for each measure.

    Args:
        title: above the table.
        metrics: by name; the part before the first slash is the measure.
        remarks: below the table.
        unit: of the bound.
    """
    sections: dict[str, list[list[str]]] = {}
    for name, metric in metrics.items():
        value, error = formatted(metric)
        row = [name, value, f"{error} {metric.unit}".strip()]
        sections.setdefault(name.partition("/")[0], []).append(row)
    _print_table(title, list(sections.values()), unit)
    for remark in remarks:
        print_line(f"[dim]{escape(remark)}[/dim]")


def _print_table(title: str, sections: Sequence[Sequence[Sequence[str]]], unit: str) -> None:
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
    if unit != NATS:
        print_line(f"[dim]{NOT_NATS_NOTE}[/dim]")
