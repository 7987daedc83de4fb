"""The workspace and the report show what a run really logs; W&B is told what a sweep came to."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import composed
from tests.test_entry_points import history, is_picture, records
from vaelab.commands.sweep import write_results
from vaelab.commands.train import train
from vaelab.runtime.errors import UserError

SECRETS = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_ENTITY", "WANDB_PROJECT")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> Path:
    """The folder of a sweep over two rates, as its jobs and its end leave it."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.delenv(name, raising=False)
        for number, rate in enumerate(("1e-3", "1e-5")):
            job = folder / str(number)
            (job / ".hydra").mkdir(parents=True)
            options = [*tiny_data, f"optimizer.lr={rate}", "callbacks.pictures.every_n_epochs=1", "logger=wandb"]
            (job / ".hydra" / "overrides.yaml").write_text("".join(f"- {option}\n" for option in options))
            train(composed("train", *options, f"run_dir={job}", f"logger.wandb.group={folder.name}"))
            _as_typed(job / "config.yaml", options)
        write_results(folder)
    return folder


def _as_typed(path: Path, options: list[str]) -> None:
    """Puts into a run's configuration what Hydra would have known: what was typed."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.load(path)
    config.overrides = options
    OmegaConf.save(config, path)


def test_every_panel_shows_what_a_run_logs(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb_workspaces", reason='needs pip install -e ".[dashboard]"')
    from vaelab.commands.dashboard import dashboard

    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key of the user's own
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    dashboard(composed("dashboard", f"sweep={sweep}", f"run_dir={tmp_path}"))
    assert "not saved, because there is no key" in capsys.readouterr().out

    logged = records(sweep / "0")
    curves = {name.partition(".")[0] for name in history(logged)}
    summary = {key for record in logged for key in _summary(record)}
    config = next(record["config"]["update"] for record in logged if "latent_dim" in str(record.get("config")))
    workspace = json.loads((tmp_path / "workspace.json").read_text())
    sections = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["Curves", "Images", "Comparison"]
    panels = {panel["config"].get("chartTitle") or panel["viewType"]: panel for s in sections for panel in s["panels"]}
    lines = [panel["config"] for panel in panels.values() if panel["viewType"] == "Run History Line Plot"]
    assert {metric for line in lines for metric in line["metrics"]} <= curves
    media = [panel["config"]["mediaKeys"] for panel in panels.values() if panel["viewType"] == "Media Browser"]
    assert {key for keys in media for key in keys} <= curves
    scatter = panels["rate and distortion"]["config"]
    assert {scatter["xAxis"], scatter["yAxis"]} == {"summary:test/kl", "summary:test/reconstruction"}
    assert {"test/kl", "test/reconstruction", "test/elbo", "val/elbo", "images_per_second"} <= summary
    axes = [column["accessor"] for column in panels["Parallel Coordinates Plot"]["config"]["columns"]]
    assert axes == ["config:config.value.optimizer.lr", "summary:test/kl", "summary:val/elbo"]
    assert config["config"]["optimizer"]["lr"] == 1e-3
    [runs] = workspace["spec"]["section"]["runSets"]
    assert runs["filters"]["filters"][0]["value"] == sweep.name

    report = json.loads((tmp_path / "report.json").read_text())
    grids = [block for block in report["spec"]["blocks"] if block["type"] == "panel-grid"]
    kinds = [panel["viewType"] for grid in grids for panel in grid["metadata"]["panelBankSectionConfig"]["panels"]]
    assert sorted(kinds) == sorted(panel["viewType"] for panel in panels.values())


def _summary(record: dict[str, Any]) -> list[str]:
    """The names that a record of a W&B run sets in its summary; what is logged is there by itself."""
    return list(record.get("summary", {}).get("update", {})) + list(record.get("history", {}).get("item", {}))


def test_the_summary_is_of_the_weights_that_were_tested(sweep: Path) -> None:
    figures = json.loads((sweep / "0" / "metrics.json").read_text())
    updates: dict[str, Any] = {}
    for record in records(sweep / "0"):
        updates |= record.get("summary", {}).get("update", {})
    for name in ("test/elbo", "val/elbo", "parameters", "unit", "epochs"):
        assert updates[name] == pytest.approx(figures[name]) if isinstance(figures[name], float) else figures[name]


def test_a_sweep_ends_in_a_run_that_names_the_best(sweep: Path) -> None:
    logged = records(sweep)
    described = next(record["run"] for record in logged if record["type"] == "run")
    assert described["run_group"] == sweep.name
    [best] = (sweep / "0" / "wandb").glob("offline-run-*")
    updates: dict[str, Any] = {}
    for record in logged:
        updates |= record.get("summary", {}).get("update", {})
    assert updates["best"] == best.name.rpartition("-")[2]
    assert updates["best/optimizer.lr"] == "1e-3"
    values = history(logged)
    [table] = sweep.glob("wandb/offline-run-*/files/media/table/sweep/results*.json")
    rows = json.loads(table.read_text())
    assert rows["columns"][:3] == ["rank", "job", "optimizer.lr"]
    assert [row[2] for row in rows["data"]] == ["1e-3", "1e-5"]
    for name in ("sweep/curves.path", "sweep/curves"):
        for shown in values.get(name, []):
            assert shown
    assert all(is_picture(path) for path in sweep.glob("wandb/offline-run-*/files/media/images/sweep/*.png"))
    assert list(sweep.glob("wandb/offline-run-*/files/media/images/sweep/curves*.png"))


def test_a_sweep_without_differences_has_no_dashboard(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces", reason='needs pip install -e ".[dashboard]"')
    from vaelab.commands.dashboard import columns_of

    with pytest.raises(UserError, match="holds no sweep that varies a setting"):
        columns_of(tmp_path)
