"""Names of the file system as text."""

import logging
import os
from pathlib import Path

import pytest

from vaelab.runtime import console
from vaelab.runtime.files import write_csv, write_text

NAMES = [b"caf\xe9", b"two\nlines", b"\x1b[31mred", "cafe\u0301".encode(), "\u732b".encode()]


@pytest.mark.parametrize("name", list(map(os.fsdecode, NAMES)))
def test_every_name_is_displayed_in_one_line_of_utf_8(name: str) -> None:
    shown = console.displayable(name)
    assert shown.encode().decode() == shown
    assert shown.isprintable()
    assert console.displayable(shown) == shown


def test_names_are_changed_only_where_they_cannot_be_displayed() -> None:
    assert console.displayable("\u732b $x$ \u00e9") == "\u732b $x$ \u00e9"
    assert console.displayable("cafe\u0301") == "caf\u00e9"  # file systems differ in the form of accents


def test_every_name_is_printed_logged_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    name = os.fsdecode(b"caf\xe9")
    with caplog.at_level(logging.INFO, "vaelab.printed"):
        caplog.handler.setFormatter(logging.Formatter("%(message)s"))
        logging.getLogger("vaelab.printed").addHandler(caplog.handler)
        console.print_line(name)
        logging.getLogger("vaelab.printed").removeHandler(caplog.handler)
    shown = console.displayable(name)
    assert capsys.readouterr().out == f"{shown}\n"
    assert caplog.messages == [shown]
    write_text(name, tmp_path / "text")
    write_csv([name], [{name: name}], tmp_path / "table")
    assert (tmp_path / "text").read_text(encoding="utf-8") == shown
    assert (tmp_path / "table").read_text(encoding="utf-8").split() == [shown, shown]
