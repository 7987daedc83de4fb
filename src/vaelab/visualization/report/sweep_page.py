"""The page of a sweep, or of the evaluations of several runs: a ranked table that leads to the page of each."""

import os
from collections.abc import Sequence
from pathlib import Path

from vaelab.runs import evaluation_table, sweep_folder
from vaelab.runs.foreign_files import lies_in, read_yaml
from vaelab.runs.metrics import NOT_NATS, NOT_NATS_NOTE
from vaelab.runs.ranked_table import RankedTable, number_of
from vaelab.runs.run_folder import RunFolder
from vaelab.runs.sweep_folder import TERMS, Job
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.report import curves
from vaelab.visualization.report.images import ImageSections, side_by_side
from vaelab.visualization.report.page import (
    NAME,
    Block,
    Cell,
    Page,
    address,
    note,
    section,
    table,
)
from vaelab.visualization.report.run_page import command_of, duration

_MOST_CURVES = 10  # as many as there are colours
_MOST_PICTURES = 12
_KEPT = ("hydra.mode", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.run.dir")  # say where, not what


def is_several(folder: Path) -> bool:
    """Whether a folder is a sweep's, or that of several evaluations, and no run's."""
    return not RunFolder(folder).is_run and (sweep_folder.is_sweep(folder) or (folder / "results.csv").is_file())


def parts(folder: Path) -> list[Path]:
    """The folders of the runs or evaluations in one of several; none of any other."""
    if not is_several(folder):
        return []
    if sweep_folder.is_sweep(folder):
        return list(dict.fromkeys(job.folder for job in sorted(sweep_folder.read(folder), key=lambda job: job.number)))
    return sorted(path.parent for path in folder.rglob(RunFolder(folder).evaluation_file.name))


def page(folder: Path) -> Page:
    """What is known of a sweep or of several evaluations."""
    return _sweep(folder) if sweep_folder.is_sweep(folder) else _evaluations(folder)


def _sweep(folder: Path) -> Page:
    jobs = sweep_folder.read(folder)
    names = sweep_folder.swept(jobs)
    done = [job for job in jobs if job.metrics]
    comparable = len({job.kind for job in done}) <= 1
    units = {str(job.metrics.get("unit", "")) for job in done}
    unit = units.pop() if len(units) == 1 else ""
    images = ImageSections(folder)
    best = done[:1] if comparable else []
    tiles = [("jobs done", f"{len(done)} of {len(jobs)}", "")]
    for job in best:
        value = job.metrics.get("val/elbo")
        if isinstance(value, float):
            tiles.append(("best validation ELBO", f"{value:,.2f}", unit))
        tiles += [(name.rpartition(".")[2], job.overrides.get(name, "-"), "of the best") for name in names[:4]]
    seconds = [job.metrics.get("seconds", 0.0) for job in done]
    return Page(
        f"Sweep over {', '.join(names)}" if names else f"Sweep of {len(jobs)}",
        f"{len(jobs)} jobs, {duration(sum(seconds))} in all",
        tiles,
        [
            section("summary", "Summary", lambda: _repeat(folder)),
            section("metrics", "Metrics", lambda: _table(folder, jobs, names, comparable)),
            section("charts", "Charts", lambda: images.blocks("charts")),
            section("curves", "Curves", lambda: _curves(done, names, unit, comparable)),
            section(
                "samples",
                "Samples",
                lambda: side_by_side(
                    [
                        (RunFolder(job.folder).images / "samples.png", _label(job, names))
                        for job in done[:_MOST_PICTURES]
                    ]
                ),
            ),
            section("rest", "More pictures", lambda: images.blocks("rest")),
        ],
    )


def _curves(done: Sequence[Job], names: Sequence[str], unit: str, comparable: bool) -> list[Block]:
    if not comparable:
        raise NotApplicable(
            "Jobs with different images or losses share no chart. The report of each job has its curves."
        )
    files = {_label(job, names): RunFolder(job.folder).metrics_csv for job in done[:_MOST_CURVES]}
    shown = curves.of_several(files, [term.replace("test", "val") for term in TERMS if term != "val/elbo"], unit)
    return [*shown, *([note(f"Of the first {_MOST_CURVES} in the table.")] if len(done) > _MOST_CURVES else [])]


def _label(job: Job, names: Sequence[str]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]}={job.overrides.get(name, '-')}" for name in names) or str(job.number)


def _repeat(folder: Path) -> list[Block]:
    path = folder / "multirun.yaml"
    if not lies_in(path, folder):
        raise NotApplicable("How to repeat it is not known: there is no multirun.yaml.")
    typed = read_yaml(path)["hydra"]["overrides"]
    hydras = [word for word in typed["hydra"] if word.partition("=")[0] not in _KEPT]
    words = [*typed["task"], *hydras]
    return [Block("command", {"title": "To do it again", "command": command_of("train", words, "-m")})]


def _table(folder: Path, jobs: Sequence[Job], names: Sequence[str], comparable: bool) -> list[Block]:
    """The ranked jobs, each with a link to its own report."""
    reports = [job.folder / NAME for job in jobs]
    lines = [_ranked(sweep_folder.table_of(jobs, names), "job", folder, reports)]
    lines.append(
        note(f"{sweep_folder.caption(comparable)} A heading sorts by its column; a job's number leads to its report.")
    )
    if any(job.metrics.get("unit") == NOT_NATS for job in jobs):
        lines.append(note(NOT_NATS_NOTE))
    return lines


def _ranked(ranked: RankedTable, linked: str, folder: Path, reports: Sequence[Path]) -> Block:
    """A ranked table that can be sorted.

    Args:
        ranked: the table.
        linked: the column whose cells link to reports.
        folder: of the page.
        reports: of each row, as far as the files exist.
    """
    columns = ranked.columns
    rows = []
    for number, (row, report) in enumerate(zip(ranked.rows, reports, strict=True), 1):
        cells = []
        for column in columns:
            value = row.get(column.name)
            text = value if isinstance(value, str) else column.text(row)  # settings are not shortened here
            cells.append(Cell(text, number if column.name == "rank" else number_of(value)))
            if column.name == linked and report.is_file():
                cells[-1].href = address(Path(os.path.relpath(report, folder)).as_posix())
        rows.append(cells)
    numeric = [column.name for column in columns if ranked.is_numeric(column)]
    return table([column.name for column in columns], rows, "ranked", sortable=True, numeric=numeric)


def _evaluations(folder: Path) -> Page:
    ranked = evaluation_table.read(folder / "results.csv")
    reports = [folder / row["run"] / NAME for row in ranked.rows]
    images = ImageSections(folder)
    line = (
        "Grouped by images and loss, the best first. A heading sorts by its column; a run's name leads to its report."
    )

    return Page(
        f"Evaluation of {len(ranked.rows)} runs",
        "the report of each run has all its metrics, with their protocol",
        [],
        [
            section("summary", "Summary", lambda: _repeat_evaluations(folder)),
            section("metrics", "Metrics", lambda: [_ranked(ranked, "run", folder, reports), note(line)]),
            section("rest", "More pictures", lambda: images.blocks("charts"), lambda: images.blocks("rest")),
        ],
    )


def _repeat_evaluations(folder: Path) -> list[Block]:
    """What was typed, which is in the protocol of each."""
    for part in parts(folder):
        typed = RunFolder(part).evaluation.get("protocol", {}).get("overrides")
        if typed is not None:
            return [Block("command", {"title": "To evaluate them again", "command": command_of("evaluate", typed)})]
    raise NotApplicable("How to repeat it is not known: there is no evaluation.json that says so.")
