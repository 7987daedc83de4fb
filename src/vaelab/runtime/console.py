"""Lines for people: printed on the terminal, and logged in the run's log file."""

import logging
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import get_console
from rich.text import Text

from vaelab.runtime import distributed
from vaelab.runtime.errors import NotApplicable

log = logging.getLogger(__name__)

prefix = ""  # of every printed line: it names the job where several processes share a terminal

# A copy of the printed lines for the run's log file. configs/hydra/base.yaml gives this logger no other handler.
_printed = logging.getLogger("vaelab.printed")
_printed.propagate = False


def displayable(name: str) -> str:
    """A name of the file system as text that can be printed, drawn and written as UTF-8, in one line.

    Python decodes the bytes of a name that is not UTF-8 to lone surrogates, which no font and no file can hold. They
    and control characters become escapes. Accents are composed, because file systems differ in their form.
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char
        for char in unicodedata.normalize("NFC", name)
    )


def encodable(text: str) -> str:
    """A text of one or more lines with escapes in place of lone surrogates, see :func:`displayable`."""
    return text.encode(errors="backslashreplace").decode()


def print_line(text: str) -> None:
    """Prints a line and logs it.

    The line is not wrapped, because nobody can copy a path that is broken in two. Only the first of several processes
    prints.
    """
    text = encodable(text)
    if distributed.is_first():
        get_console().print(prefix + text.replace("\n", f"\n{prefix}"), highlight=False, soft_wrap=True)
    log_line(Text.from_markup(text).plain)


def log_line(text: str) -> None:
    """Writes a line into the run's log file only."""
    _printed.info(encodable(text))


def short_path(path: Path) -> str:
    """A path relative to the working directory, if the path is below it; else the absolute path."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path.resolve())


@contextmanager
def best_effort(name: str) -> Iterator[None]:
    """Turns any error inside into one line of the log, because a plot or a report must not end a training.

    Args:
        name: of the plot or the file.
    """
    try:
        yield
    except NotApplicable as reason:
        log.info("%s: left out: %s", name, reason)
    except Exception as error:
        log.warning("%s: failed: %s: %s", name, type(error).__name__, str(error).partition("\n")[0])
