"""Links of a report to files whose names are in any script, or no text."""

import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote_to_bytes

from vaelab.runs import job_records
from vaelab.visualization import report


def test_a_table_of_runs_leads_to_folders_of_any_name(finished_run: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    names = {"0": b"caf\xe9", "1": "日本 %20 #?".encode()}
    for number, name in names.items():
        job = sweep / os.fsdecode(name)
        shutil.copytree(finished_run, job)
        job_records.begin(sweep, job, int(number), [f"seed={number}"])
    page = report.write(sweep).read_text(encoding="utf-8")
    links = {unquote_to_bytes(link) for link in re.findall(r'href="([^"]+)/report\.html"', page)}
    assert links == set(names.values())
