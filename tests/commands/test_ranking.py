"""The table of a folder of runs."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vaelab.commands import ranking
from vaelab.runs import comparability, ranked_table, run_folder
from vaelab.runs.evaluation_table import rows_of


def _evaluation(
    data: str, elbo: float, log_likelihood: float, folder: str | None = None, **more: Any
) -> dict[str, Any]:
    protocol = {"data": data, "binarize": "dynamic", "choices": {"loss": "bce"}, "conditional": False, "unit": "nats"}
    config = {**protocol, "data": {"binarize": "dynamic", "source": {"name": data, "folder": folder}, **more}}
    figures = {
        "test/elbo": {"value": elbo},
        "likelihood/test/log_likelihood, k=1000": {"value": log_likelihood, "standard_error": 12.34},
    }
    return {
        "protocol": {
            **protocol,
            "comparable": comparability.shared_settings(config, is_normalized=True, tests_all=True),
        },
        "metrics": figures,
    }


def test_a_link_to_a_run_is_no_other_run(tmp_path: Path) -> None:
    for name in ("runs/a", "runs/b"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "best.ckpt").touch()
    (tmp_path / "latest").symlink_to(tmp_path / "runs" / "b")
    assert list(run_folder.runs_in(tmp_path)) == ["runs/a", "runs/b"]
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "one").symlink_to(tmp_path / "runs" / "a")  # a folder of links to runs elsewhere
    assert list(run_folder.runs_in(tmp_path / "chosen")) == ["one"]


@pytest.mark.parametrize("width", [60, 80, 160])
def test_in_a_terminal_of_any_width_figures_are_whole(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), width=width)
    monkeypatch.setattr(ranked_table, "get_console", lambda: console)
    evaluations = {
        "mnist-resnet-standard_normal": _evaluation("MNIST", -93.15, -87.59),
        "fashion_mnist-resnet-standard_normal": _evaluation("FashionMNIST", -1236.35, -1231.85),
    }
    ranking.write_results(evaluations, {}, tmp_path)
    table = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in table
    for figure in ("-87.59", "-1,231.85", "12.34", *(["-93.15", "-1,236.35"] if width == 160 else [])):
        assert figure in table
    for name in ("mnist-resnet-standard_normal", "fashion_mnist-resnet-standard_normal"):
        assert (name in table) or width < 160
    assert all(len(line) <= width for line in table.splitlines())


def test_the_models_of_one_set_of_images_stand_together() -> None:
    evaluations = {
        "best of one": _evaluation("a folder", -80.0, -78.0, "one"),
        "of another": _evaluation("a folder", -50.0, -48.0, "another"),
        "second of one": _evaluation("a folder", -90.0, -88.0, "one"),
    }
    assert [row["run"] for row in rows_of(evaluations)] in (
        ["best of one", "second of one", "of another"],
        ["of another", "best of one", "second of one"],
    )


def test_evaluations_of_other_test_images_are_groups() -> None:
    """The validation images chose the epoch, and are not those of an evaluation."""
    rows = rows_of(
        {
            "many": _evaluation("MNIST", -100.0, -90.0, validation=500),
            "as many": _evaluation("MNIST", -101.0, -91.0, validation="test"),
            "few": _evaluation("MNIST", -80.0, -70.0, limit=50),
            "as few": _evaluation("MNIST", -81.0, -71.0, limit=50),
        }
    )
    groups = [[row["run"] for row in rows][i : i + 2] for i in (0, 2)]
    assert sorted(groups) == [["few", "as few"], ["many", "as many"]]
    assert [row["data"].endswith("limit 50") for row in rows] == ["few" in row["run"] for row in rows]
