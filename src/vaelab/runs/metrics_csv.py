"""``metrics.csv``: the metrics of a training over time."""

import csv
import io
from pathlib import Path


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv``, each with its step; none if the file does not exist."""
    if not path.is_file():
        return []
    # A power cut or a full disk can truncate the last row. A row without its end of line is left out.
    text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    return [row for row in rows if None not in row and (row.get("step") or "").isdecimal()]
