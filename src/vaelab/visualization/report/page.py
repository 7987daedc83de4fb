"""What a page is made of, and how it becomes one file."""

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vaelab.runtime import files
from vaelab.runtime.errors import NotApplicable
from vaelab.runtime.files import write_text
from vaelab.runtime.version import __version__

log = logging.getLogger(__name__)

NAME = "report.html"
_HERE = Path(__file__).parent


class Block(NamedTuple):
    """A piece of a section.

    Attributes:
        kind: which macro of the template draws it.
        values: what it draws.
    """

    kind: str
    values: dict[str, Any]


Piece = Callable[[], Sequence[Block]]


@dataclass
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says.
        value: by which it is sorted, if not by its text.
        href: where it leads.
    """

    text: str
    value: float | None = None
    href: str | None = None


class Section(NamedTuple):
    """A heading and what stands below it."""

    id: str
    title: str
    blocks: list[Block]


def section(id: str, title: str, *pieces: Piece) -> Section:
    """A section of these pieces; of those that cannot be had, a line each that says why."""
    blocks: list[Block] = []
    for piece in pieces:
        try:
            blocks += piece()
        except NotApplicable as reason:
            blocks.append(note(str(reason)))
        except Exception as error:
            what = f"{title.lower()}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            log.warning("%s: left out: %s", NAME, what)
            blocks.append(note(f"A piece is left out, because it could not be read ({what})."))
    return Section(id, title, blocks)


def note(text: str) -> Block:
    """A quiet line."""
    return Block("note", {"text": text})


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    style: str = "",
    sortable: bool = False,
    numeric: Sequence[str] = (),
    title: str = "",
) -> Block:
    """A table; ``numeric`` columns stand to the right."""
    return Block(
        "table",
        {
            "columns": columns,
            "rows": rows,
            "style": style,
            "sortable": sortable,
            "numeric": numeric,
            "title": title,
        },
    )


def plot(kind: str, title: str, data: dict[str, Any], caption: str = "") -> Block:
    """A chart that the page's script draws, from data that JSON can hold."""
    return Block("plot", {"plot": kind, "title": title, "data": data, "caption": caption})


@dataclass
class Page:
    """A report.

    Attributes:
        title: what it is of.
        subtitle: one line below it.
        tiles: the figures that matter most: name, value, unit.
        sections: all the rest.
    """

    title: str
    subtitle: str
    tiles: Sequence[tuple[str, str, str]] = ()
    sections: list[Section] = field(default_factory=list)

    def html(self) -> str:
        """The page, with everything it needs in it, and with nothing allowed that is not."""
        environment = Environment(
            loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        environment.filters["json"] = _json
        style = f"{_text('uplot/uPlot.min.css')}\n{_text('../colours.css')}\n{_text('report.css')}"
        # Whoever passes the page on passes uPlot on, with its licence.
        script = f"/*\n{_text('uplot/LICENSE')}\n*/\n{_text('uplot/uPlot.iife.min.js')}\n{_text('report.js')}"
        policy = (
            f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
            "base-uri 'none'; form-action 'none'"
        )
        return environment.get_template("report.html").render(
            page=self,
            sections=[section for section in self.sections if section.blocks],
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            version=__version__,
        )

    def save(self, path: Path) -> Path:
        """Writes it, whole or not at all, and returns its path."""
        write_text(self.html(), path)
        return path


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """By which a browser knows the only script and the only style that it is to run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(values: Any) -> Markup:
    """JSON that can stand in a script element, whatever its strings are."""
    text = json.dumps(files.json_values(values), allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
