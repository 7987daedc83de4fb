"""The parts of a report, and their rendering into one HTML file."""

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

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
    """A block of a section.

    Attributes:
        kind: name of the template's macro that renders it.
        values: arguments of the macro.
    """

    kind: str
    values: dict[str, Any]


MakeBlocks = Callable[[], Sequence[Block]]


@dataclass
class Cell:
    """One cell of a table.

    Attributes:
        text: that is shown.
        value: to sort by, if not the text.
        href: of a link.
    """

    text: str
    value: float | None = None
    href: str | None = None


class Section(NamedTuple):
    """A heading and its blocks."""

    id: str
    title: str
    blocks: list[Block]


def section(id: str, title: str, *makers: MakeBlocks) -> Section:
    """A section with the blocks that these functions make; if one fails, a note gives the reason."""
    blocks: list[Block] = []
    for make_blocks in makers:
        try:
            blocks += make_blocks()
        except NotApplicable as reason:
            blocks.append(note(str(reason)))
        except Exception as error:
            cause = f"{title.lower()}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            log.warning("%s: left out: %s", NAME, cause)
            blocks.append(note(f"A part is left out, because it could not be read ({cause})."))
    return Section(id, title, blocks)


def address(path: str) -> str:
    """The address of a file for a link, from its relative path."""
    return quote(path, errors="surrogateescape")  # the bytes of a name that is not UTF-8


def note(text: str) -> Block:
    """A line of small text."""
    return Block("note", {"text": text})


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    style: str = "",
    sortable: bool = False,
    numeric: Sequence[str] = (),
    title: str = "",
) -> Block:
    """A table; columns named in ``numeric`` are aligned to the right."""
    values = {"columns": columns, "rows": rows, "style": style, "sortable": sortable, "numeric": numeric}
    return Block("table", values | {"title": title})


def plot(kind: str, title: str, data: dict[str, Any], caption: str = "") -> Block:
    """A chart that the script of the page makes from data, which must be valid JSON."""
    return Block("plot", {"plot": kind, "title": title, "data": data, "caption": caption})


@dataclass
class Page:
    """A report.

    Attributes:
        title: the heading.
        subtitle: one line below the title.
        tiles: the most important metrics: name, value, unit.
        sections: the rest of the page.
    """

    title: str
    subtitle: str
    tiles: Sequence[tuple[str, str, str]] = ()
    sections: list[Section] = field(default_factory=list)

    def html(self) -> str:
        """The page as HTML; it contains all it needs, and its security policy forbids everything else."""
        environment = Environment(
            loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        environment.filters["json"] = _json
        style = f"{_text('uplot/uPlot.min.css')}\n{_text('../colours.css')}\n{_text('report.css')}"
        # The page distributes uPlot, so it must contain the licence.
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
        """Writes the page, completely or not at all, and returns its path."""
        write_text(self.html(), path)
        return path


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """The hash of the only script or style that a browser may use."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(values: Any) -> Markup:
    """JSON for a script element; no string in it can end the element."""
    text = json.dumps(files.json_values(values), allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
