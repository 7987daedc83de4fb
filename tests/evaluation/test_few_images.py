"""Every measure, the report and the explorer with one, two or three test images: done, or refused in one line."""

import json
import math
from pathlib import Path

import pytest

from tests.conftest import composed
from vaelab.commands.evaluate import evaluate
from vaelab.commands.explore import explore
from vaelab.commands.train import train
from vaelab.runtime.errors import UserError

FEW = (1, 2, 3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> dict[int, Path]:
    """Runs with so many images in each split; their reports are written at the end of the training."""
    found = {count: tmp_path_factory.mktemp("few") / str(count) for count in FEW}
    options = ["model=mlp", "data.batch_size=1", "trainer.max_epochs=1", "logger=csv", "callbacks.gallery=null"]
    for count, run in found.items():
        train(composed("train", *tiny_data, *options, f"data.limit={count}", f"run_dir={run}"))
    return found


@pytest.mark.parametrize("count", FEW)
@pytest.mark.parametrize("measure", ["likelihood", "latents", "reconstructions", "scores"])
def test_a_measure_of_few_images_is_done_or_refused(
    measure: str, count: int, runs: dict[int, Path], tmp_path: Path
) -> None:
    cfg = composed("evaluate", f"run={runs[count]}", f"run_dir={tmp_path}", f"what={measure}")
    try:
        metrics = evaluate(cfg)["metrics"]
    except UserError:  # with a line for the user; any other error fails here
        return
    values = [metric["value"] for name, metric in metrics.items() if name.startswith(measure)]
    assert values
    assert all(math.isfinite(value) for value in values if value is not None), metrics


@pytest.mark.parametrize("count", FEW)
def test_reports_and_explorers_of_few_images_are_written(count: int, runs: dict[int, Path], tmp_path: Path) -> None:
    assert (runs[count] / "report.html").is_file()
    assert json.loads((runs[count] / "metrics.json").read_text())["epochs"] == 1
    options = ["open=false", "draws=8", f"images={count if count > 1 else 0}"]
    explore(composed("explore", f"run={runs[count]}", f"run_dir={tmp_path}", *options))
    assert list(tmp_path.glob("*.html"))
