"""``metrics.csv``: the metrics of a training over time."""

import csv
import io
import re
from pathlib import Path

from vaelab.runtime.errors import NotApplicable


def read_rows(path: Path, most_bytes: int | None = None) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv``, each with its step; none if the file does not exist.

    Args:
        path: of the file.
        most_bytes: the largest file to read, if it may be somebody else's.

    Raises:
        NotApplicable: it is larger, or no table.
    """
    if not path.is_file():
        return []
    if most_bytes is not None and path.stat().st_size > most_bytes:
        raise NotApplicable(f"{path.name} is too large: it has more than {most_bytes / 1e6:.0f} MB.")
    # A power cut or a full disk can truncate the last row. A row without its end of line is left out.
    text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    try:
        return [row for row in rows if None not in row and re.fullmatch(r"[0-9]{1,18}", row.get("step") or "")]
    except csv.Error as error:  # e.g. a cell of a megabyte
        raise NotApplicable(f"{path.name} cannot be read: {error}") from error
