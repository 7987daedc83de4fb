"""metrics.csv keeps every row once, also when a training goes on."""

import csv
from pathlib import Path
from typing import Any

import pytest
import wandb

from tests.conftest import composed
from vaelab.commands.train import train
from vaelab.runtime.errors import UserError
from vaelab.training.loggers import CSVLogger, wandb_logger


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_on_disk_at_once_and_new_columns_join(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"a": 1.0}, step=0)
    assert _rows(logger.path) == [{"step": "0", "a": "1.0"}]
    logger.log_metrics({"b": 2.0}, step=1)
    logger.log_metrics({"a": 3.0}, step=2)
    assert _rows(logger.path) == [
        {"step": "0", "a": "1.0", "b": ""},
        {"step": "1", "a": "", "b": "2.0"},
        {"step": "2", "a": "3.0", "b": ""},
    ]


def test_going_on_drops_what_is_logged_again(tmp_path: Path) -> None:
    first = CSVLogger(tmp_path / "metrics.csv")
    for step in range(5):
        first.log_metrics({"a": step}, step=step)
    second = CSVLogger(tmp_path / "metrics.csv")
    second.resume(3)
    second.log_metrics({"b": 30}, step=3)
    assert [(row["step"], row["a"], row["b"]) for row in _rows(second.path)] == [
        ("0", "0", ""),
        ("1", "1", ""),
        ("2", "2", ""),
        ("3", "", "30"),
    ]


def test_a_training_that_goes_on_in_its_folder_leaves_one_whole_file(tmp_path: Path, tiny_data: list[str]) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(composed("train", f"run_dir={whole}", *tiny_data, "trainer.max_epochs=4", "callbacks=none"))
    train(composed("train", f"run_dir={broken}", *tiny_data, "trainer.max_epochs=2", "callbacks=none"))
    train(
        composed(
            "train", f"run_dir={broken}", *tiny_data, "trainer.max_epochs=4", "callbacks=none", f"ckpt_path={broken}"
        )
    )
    expected, got = _rows(whole / "metrics.csv"), _rows(broken / "metrics.csv")
    assert got == expected  # the test after the first two epochs is superseded
    with pytest.raises(UserError, match="already holds a run"):
        train(composed("train", f"run_dir={broken}", *tiny_data))


def test_unknown_wandb_modes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(UserError, match="set it to offline, online or disabled"):
        wandb_logger(str(tmp_path), "project")


@pytest.mark.parametrize("torn", ["7", "7,", "\0\0\0\0", "7,0.5"])
def test_a_torn_last_row_is_left_out(tmp_path: Path, torn: str) -> None:
    (tmp_path / "metrics.csv").write_text(f"step,a\n5,1.0\n{torn}")
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.resume(7)
    logger.log_metrics({"a": 2.0}, step=7)
    assert [(row["step"], row["a"]) for row in _rows(logger.path)] == [("5", "1.0"), ("7", "2.0")]


def test_a_training_that_goes_on_is_the_same_wandb_run(tmp_path: Path, tiny_data: list[str]) -> None:
    options = (f"run_dir={tmp_path}", *tiny_data, "logger=wandb", "callbacks=none")
    train(composed("train", *options, "trainer.max_epochs=1"))
    train(composed("train", *options, f"ckpt_path={tmp_path}"))
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    assert len({run.name.split("-")[3] for run in runs}) == 1


@pytest.mark.parametrize("where", ["init", "log"])
def test_a_training_goes_on_when_wandb_fails(
    where: str,
    tmp_path: Path,
    tiny_data: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise wandb.errors.CommError("the network is gone\nand more")

    monkeypatch.setattr(wandb if where == "init" else wandb.Run, where, fail)
    figures = train(composed("train", f"run_dir={tmp_path}", *tiny_data, "logger=many"))
    assert figures["epochs"] == 2
    assert len([row for row in _rows(tmp_path / "metrics.csv") if row["val/elbo"]]) == 2
    said = [record.getMessage() for record in caplog.records if "W&B failed" in record.getMessage()]
    assert said == ["W&B failed and gets no more data; the training continues: the network is gone"]
