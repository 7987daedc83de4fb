"""The report of a run, an evaluation or a sweep: one page, ``report.html``, without network, server or other files.

It is made from the files of the folder. ``python -m vaelab.commands.report <folder>`` makes it again.
A missing or damaged file is left out, with a note on the page.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaelab.visualization.report.page import NAME

__all__ = ["NAME", "write"]


def write(folder: Path, metrics: Mapping[str, Any] | None = None) -> Path:
    """Writes the report of a run, an evaluation or a folder of several, completely or not at all; returns its path.

    Args:
        folder: of the run, the evaluation or the runs.
        metrics: of a training that has not written its ``metrics.json`` yet.
    """
    from vaelab.visualization.report import run_page, sweep_page

    page = sweep_page.page(folder) if sweep_page.is_several(folder) else run_page.page(folder, metrics)
    return page.save(folder / NAME)
