"""The files of a run folder: missing and damaged ones count as empty, and old names are read as the present ones."""

import json
from pathlib import Path

import pytest

from vaelab.runs.run_folder import RunFolder, runs_in


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.is_run
    assert not run.has_checkpoints
    assert (run.config, run.metrics, run.evaluation, run.about, run.choices) == ({}, {}, {}, {}, {})
    assert run.damaged == []


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\0\0"])
def test_a_damaged_file_counts_as_empty_and_is_named(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    run.metrics_file.write_text(text)
    assert run.metrics == {}
    assert run.damaged == ["metrics.json"]


def test_metrics_of_an_old_evaluation_are_found_by_their_present_name(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.evaluation_file.write_text(json.dumps({"figures": {"test/elbo": {"value": -1.0}}, "remarks": []}))
    assert run.evaluation == {"metrics": {"test/elbo": {"value": -1.0}}, "remarks": []}


def test_classes_of_an_old_configuration_have_their_present_names(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.config_file.write_text("module:\n  vae:\n    _target_: vaelab.vae.VAE\n    of: [{_target_: os.system}]\n")
    assert run.config["module"]["vae"] == {"_target_": "vaelab.models.vae.VAE", "of": [{"_target_": "os.system"}]}


def test_the_folder_around_a_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    around = RunFolder.around(run.checkpoint("last"))
    assert around is not None
    assert around.path == tmp_path
    assert RunFolder.around(tmp_path / "elsewhere" / "last.ckpt") is None


def test_runs_below_a_folder_are_found_once_and_in_order(tmp_path: Path) -> None:
    for name in ("10", "9", "deep/er"):
        checkpoint = RunFolder(tmp_path / name).checkpoint("best")
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
    (tmp_path / "latest").symlink_to("9")
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    assert list(runs_in(tmp_path)) == ["9", "10", "deep/er"]
    assert runs_in(tmp_path / "9") == {}
    assert runs_in("latest") == {}
