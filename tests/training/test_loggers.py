"""metrics.csv keeps every row once, also when a training goes on."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import wandb
import wandb.cli.cli

from tests.conftest import composed
from vaelab.commands.train import train
from vaelab.runtime.errors import UserError
from vaelab.runtime.paths import ROOT
from vaelab.training.loggers import CSVLogger, finish, log_configuration, wandb_logger


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


@pytest.mark.parametrize("mode", ["", None])
def test_an_empty_wandb_mode_is_none(mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    assert wandb_logger(str(tmp_path), "project")._wandb_init["mode"] == "offline"


def test_name_and_group_of_a_run_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("", None), ("mine", "mine")):
        monkeypatch.setenv("WANDB_NAME", value)
        monkeypatch.setenv("WANDB_RUN_GROUP", value)
        options = composed("train", "run_dir=/nowhere", "logger=wandb").logger.wandb
        assert (options.name, options.group) == (expected, expected)


def test_wandb_gets_names_that_are_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "data.source.folder=/caf\udce9"])
    logger = wandb_logger(str(tmp_path), "project", offline=True, name="caf\udce9")
    log_configuration([logger], {"data": "image_folder"}, {"data": {"source": {"folder": "/caf\udce9", "n": [1]}}})
    assert logger.experiment.config["config"] == {"data": {"source": {"folder": "/caf\\udce9", "n": [1]}}}
    assert logger.experiment.name == "caf\\udce9"
    finish([logger], "success")
    nowhere = wandb_logger(str(tmp_path / "caf\udce9"), "project", offline=True)
    nowhere.log_metrics({"a": 1.0})
    finish([nowhere], "success")
    assert [record.getMessage() for record in caplog.records if "W&B" in record.getMessage()] == [
        f"W&B gets no data, because it cannot write into {tmp_path}/caf\\udce9, whose name is not UTF-8"
    ]
    assert not list(tmp_path.glob("caf*"))


def test_wandb_has_the_commands_that_are_to_be_typed() -> None:
    """Written in backquotes, or as a line of a block of commands."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.yaml")]
    text = "\n".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in [*files, ROOT / "README.md"])
    typed = re.findall(r"(?:`|^)wandb ([a-z]+)([^`\n]*)", text, re.MULTILINE)
    assert {"sync", "login", "leet"} <= {name for name, _ in typed}
    for name, rest in typed:
        command = wandb.cli.cli.cli.commands[name]
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--?\w[\w-]*", rest)) <= options, (name, rest)


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
    assert wandb.run is None  # the next training of this process would continue it
