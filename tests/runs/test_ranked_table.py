"""Ranked tables: the same columns on the terminal, in Markdown and in CSV."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vaelab.runs import evaluation_table, ranked_table
from vaelab.runs.ranked_table import Column, RankedTable, number_of

COLUMNS = (
    Column("run", breaks="cells"),
    Column("module.vae.prior.components", "components", breaks="heading"),
    Column("test/elbo", is_metric=True),
    Column("seconds", is_metric=True),
)
ROWS: list[dict[str, Any]] = [
    {"run": "a|b", "module.vae.prior.components": "8", "test/elbo": -1234.567, "seconds": 1000},
    {"run": "c", "module.vae.prior.components": "16", "test/elbo": None},
]


def _printed(width: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width)
    monkeypatch.setattr(ranked_table, "get_console", lambda: console)
    RankedTable(COLUMNS, ROWS).print(**options)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_markdown_has_all_columns_and_escaped_cells() -> None:
    assert RankedTable(COLUMNS, ROWS).markdown() == [
        "| run | module.vae.prior.components | test/elbo | seconds |",
        "|---|---|---|---|",
        "| a\\|b | 8 | -1,234.57 | 1,000 |",
        "| c | 16 |  |  |",
    ]


@pytest.mark.parametrize(("width", "has_seconds"), [(60, True), (37, True), (36, False)])
def test_an_optional_column_is_left_out_exactly_if_the_table_does_not_fit(
    width: int, has_seconds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cells take 3, 5 (half of "components"), 9 and 7 characters, each with 3 blanks, and one blank at the edge: 37.
    text = _printed(width, monkeypatch, optional=["seconds"])
    assert ("seconds" in text) == has_seconds
    assert "-1,234.57" in text
    assert all(len(line) <= width for line in text.splitlines())


def test_omitted_columns_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = _printed(100, monkeypatch, omitted=["run", "seconds"])
    assert "components" in text
    assert "run" not in text
    assert "1,000" not in text


def test_values_in_csv_are_not_rounded_and_can_be_read_again(tmp_path: Path) -> None:
    rows = [
        {
            "run": "7",
            "data": "MNIST, none",
            "loss": "bce",
            "test/elbo": -93.123456,
            "samples/fid": 0.0123,
            "unit": "nats",
        },
        {"run": "b", "data": "MNIST, none", "loss": "bce", "test/elbo": -95.0, "latents/active": 12, "unit": "nats"},
    ]
    table = evaluation_table.table_of(rows)
    table.write_csv(tmp_path / "results.csv")
    again = evaluation_table.read(tmp_path / "results.csv")
    assert again.markdown() == table.markdown()
    assert again.rows[0]["test/elbo"] == -93.123456
    assert [column.name for column in again.columns if again.is_numeric(column)] == [
        "test/elbo",
        "samples/fid",
        "latents/active",
    ]


def test_a_number_is_a_value_or_its_text() -> None:
    assert [number_of(value) for value in (3, "1e-3", "", "nats", None)] == [3.0, 1e-3, None, None, None]
