"""Ranked tables of runs: one description of columns and rows for the terminal, Markdown, CSV and a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import get_console
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from vaelab.runtime.files import write_csv


def rounded(value: Any) -> str:
    """A number with two digits after the point and with thousands separators; other values as they are."""
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: of the value in each row, and the heading in files.
        heading: in a terminal; ``None`` for the name. It may have several lines.
        is_metric: align it to the right, and never break its values into lines.
        breaks: what a terminal may break into lines if the column is no metric: the heading in two, cells between
            words, or cells anywhere.
        format: a value as text.
    """

    name: str
    heading: str | None = None
    is_metric: bool = False
    breaks: Literal["heading", "words", "cells"] = "words"
    format: Callable[[Any], str] = rounded

    @property
    def title(self) -> str:
        """The heading in a terminal."""
        return self.name if self.heading is None else self.heading

    def text(self, row: Mapping[str, Any]) -> str:
        """The cell of a row; empty if the row has no such value."""
        value = row.get(self.name)
        return "" if value is None else self.format(value)


@dataclass(frozen=True)
class RankedTable:
    """Rows in the order of their ranks.

    Attributes:
        columns: of the table.
        rows: column name to value; a value may be missing.
    """

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]

    def write_csv(self, path: Path) -> None:
        """Writes the values, which are not rounded."""
        write_csv([column.name for column in self.columns], self.rows, path)

    def markdown(self) -> list[str]:
        """The lines of a Markdown table."""
        heads = [column.name for column in self.columns]
        cells = [[column.text(row).replace("|", "\\|") for column in self.columns] for row in self.rows]
        return [_line(heads), "|---" * len(heads) + "|", *map(_line, cells)]

    def is_numeric(self, column: Column) -> bool:
        """Whether each value of a column is a number, perhaps as text."""
        return column.is_metric or all(number_of(row.get(column.name)) is not None for row in self.rows)

    def print(self, omitted: Sequence[str] = (), optional: Sequence[str] = (), dimmed: Sequence[bool] = ()) -> None:
        """Prints the table on the terminal.

        Args:
            omitted: columns that are not printed.
            optional: columns that are left out, one after the other, until the table fits the width of the terminal.
            dimmed: for each row, whether it is printed dim.
        """
        columns = [column for column in self.columns if column.name not in omitted]
        for name in optional:
            # SIMPLE_HEAD adds two blanks to each column, one between columns and one at each edge.
            if sum(self._width(column) + 3 for column in columns) + 1 <= get_console().width:
                break
            columns = [column for column in columns if column.name != name]
        table = Table(box=SIMPLE_HEAD)
        for column in columns:
            table.add_column(
                escape(column.title),
                justify="right" if column.is_metric else "left",
                no_wrap=column.is_metric,
                overflow="ellipsis" if column.is_metric else "fold",
                min_width=self._least_width(column),
            )
        for number, row in enumerate(self.rows):
            style = "dim" if dimmed and dimmed[number] else None
            table.add_row(*(escape(column.text(row)) for column in columns), style=style)
        get_console().print(table)

    def _width(self, column: Column) -> int:
        """The characters that a column takes if its cells are not broken."""
        halves = 2 if column.breaks == "heading" and not column.is_metric else 1
        heading = max(-(-len(line) // halves) for line in column.title.split("\n"))
        return max([heading, *(len(column.text(row)) for row in self.rows)])

    def _least_width(self, column: Column) -> int | None:
        """The characters that a column takes at least; ``None`` if Rich may choose."""
        if column.is_metric or column.breaks == "cells":
            return None
        if column.breaks == "heading":
            return self._width(column)
        return max((len(word) for row in self.rows for word in column.text(row).split(" ")), default=None)


def number_of(value: Any) -> float | None:
    """The number that a value or its text is, or ``None``."""
    try:
        return float(value) if value is not None else None
    except ValueError:
        return None


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
