"""A run, an evaluation or a sweep as one page: ``report.html``, which needs no network, no server and no other file.

Everything on it comes from what lies in the folder, so that it can be made again:
``python -m vaelab.visualization.report <folder>``.
What is missing or damaged is left out, with a line that says so.
"""

from pathlib import Path

from vaelab.visualization.report.page import NAME

__all__ = ["NAME", "write"]


def write(folder: Path) -> Path:
    """Writes the report of a run, an evaluation, or a folder of several, whole or not at all, and returns its path."""
    from vaelab.visualization.report import run_page, sweep_page

    page = sweep_page.page(folder) if sweep_page.is_several(folder) else run_page.page(folder)
    return page.save(folder / NAME)
