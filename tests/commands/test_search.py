"""Searches: by Optuna through Hydra, which ends and goes on as a sweep does, and by W&B's agents."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps import utils as wandb_sweeps

from tests import warm
from tests.conftest import ROOT, composed
from tests.files import write_mnist

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def _search(folder: Path, *typed: str) -> subprocess.CompletedProcess[str]:
    return warm.run([ROOT / "src" / "train.py", "-m", *typed, f"hydra.sweep.dir={folder}"], env=ENVIRONMENT)


def test_a_search_prunes_fails_and_goes_on(tmp_path: Path, tiny_data: list[str]) -> None:
    optuna = pytest.importorskip("optuna", reason='needs pip install -e ".[sweeps]"')
    sweep = tmp_path / "sweep"
    typed = ["experiment=digits_search", *tiny_data, "data.limit=300", "trainer.max_epochs=3", "latent_dim=2,-1"]
    typed += ["hydra.sweeper.pruner.n_startup_trials=2", "hydra.sweeper.pruner.n_warmup_steps=0"]
    done = _search(sweep, *typed, "hydra.sweeper.n_trials=6")
    assert "Traceback" not in done.stderr
    states = [trial.state.name for trial in _study(optuna, sweep).trials]
    assert len(states) == 6
    assert set(states) == {"COMPLETE", "PRUNED", "FAIL"}
    assert done.returncode == 1  # for those that failed
    assert f"{states.count('FAIL')} of 6 jobs failed" in done.stderr
    rows = _table(sweep)
    assert {name for name in rows[0] if "." in name} == {
        "optimizer.lr",
        "module.vae.encoder.hidden_sizes",
        "module.vae.decoder.hidden_sizes",
    }
    assert (sweep / "slices.png").is_file()
    for row in rows:
        trial = _study(optuna, sweep).trials[int(row["job"])]
        assert row["optimizer.lr"] == str(trial.params["optimizer.lr"])
        if trial.state.name == "FAIL":
            assert "positive integer" in row["status"]
            continue
        assert int(row["epochs"]) == len(trial.intermediate_values)
        assert (int(row["epochs"]) < 3) == (trial.state.name == "PRUNED")
        if trial.state.name == "COMPLETE":
            assert trial.value == float(row["val/elbo"])
    done_first = [row["optimizer.lr"] for row in sorted(rows, key=lambda row: int(row["job"]))]

    other = _search(sweep, *typed, "data.limit=200")
    assert f"{sweep} holds a search with data.limit=300" in other.stderr

    # One that was begun and not ended is what the same command does first, and then no others than were asked for.
    study = _study(optuna, sweep)
    begun = study.ask(study.trials[0].distributions)
    again = _search(sweep, *typed, "hydra.sweeper.n_trials=7")
    assert "Traceback" not in again.stderr
    trials = _study(optuna, sweep).trials
    assert len(trials) == 7
    assert all(trial.state.is_finished() for trial in trials)
    rates = [row["optimizer.lr"] for row in sorted(_table(sweep), key=lambda row: int(row["job"]))]
    assert rates == [*done_first, str(begun.params["optimizer.lr"])]


def _study(optuna: Any, folder: Path) -> Any:
    return optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/study.db")


def _table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("latent_dim=3", "there is nothing to search"),
        ("loss=bce,mse", "loss cannot be searched"),
        ("data.limit=50,100", "data.limit cannot be searched"),
        ("data.validation=interval(0.1,0.2)", "data.validation cannot be searched"),
        ("conditional=true,false", "conditional cannot be searched"),
        ("experiment=keras_fashion,mathworks_mnist", "experiment cannot be searched"),
        ("optimizer.lr=tag(log,interval(0,1))", "tag(log,interval(0,1)): "),
        ("latent_dim=range(3,3)", "there is nothing to choose from"),
    ],
)
def test_what_cannot_be_searched_is_refused(typed: str, said: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason='needs pip install -e ".[sweeps]"')
    done = _search(tmp_path / "sweep", "hydra/sweeper=search", typed)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("sweep/[0-9]*"))


def test_ranges_are_what_hydra_means_by_them() -> None:
    distributions = pytest.importorskip("optuna", reason='needs pip install -e ".[sweeps]"').distributions
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from vaelab.commands.search import _distribution

    for typed, expected in {
        "a=tag(log,interval(1e-4,1e-2))": distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "a=interval(0,1)": distributions.FloatDistribution(0, 1),
        "a=int(interval(2,64))": distributions.IntDistribution(2, 64),
        "a=tag(log,int(interval(2,64)))": distributions.IntDistribution(2, 64, log=True),
        "a=range(2,9,3)": distributions.IntDistribution(2, 8, step=3),
        "a=choice([200],[400,400])": distributions.CategoricalDistribution(["[200]", "[400,400]"]),
        "a=mlp,conv": distributions.CategoricalDistribution(["mlp", "conv"]),
    }.items():
        (override,) = OverridesParser.create().parse_overrides([typed])
        assert _distribution(override) == expected, typed


WANDB: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "sweeps" / "wandb.yaml"), resolve=False)


def _values(parameter: dict[str, Any]) -> list[Any]:
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def test_every_value_of_the_wandb_sweep_composes() -> None:
    fixed = [part for part in WANDB["command"] if "=" in part]
    for name, parameter in WANDB["parameters"].items():
        for value in _values(parameter):
            cfg = composed("train", "run_dir=/nowhere", *fixed, f"{name}={value}")
            if not (ROOT / "configs" / name).is_dir():  # a setting rather than a group
                assert OmegaConf.select(cfg, name) == value


def test_the_command_of_a_wandb_agent_runs(tmp_path: Path) -> None:
    """Typed by W&B's own code, but for the server's part: that sends the values, and nothing is sent to it."""
    write_mnist(tmp_path / "MNIST" / "raw", 5200)
    sent = {name: {"value": _values(parameter)[0]} for name, parameter in WANDB["parameters"].items()}
    arguments = wandb_sweeps.create_sweep_command_args({"args": sent})
    parts = {**arguments, "env": ["/usr/bin/env"], "interpreter": [sys.executable], "program": [WANDB["program"]]}
    command: list[str] = []
    for part in wandb_sweeps.create_sweep_command(list(WANDB["command"])):
        command += parts[part[2:-1]] if part.startswith("${") else [part]
    sweep = {"WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "run1", "WANDB_MODE": "offline", "DATA_DIR": str(tmp_path)}
    command += [f"hydra.run.dir={tmp_path / 'run'}", "callbacks=none", "trainer.max_epochs=1"]  # elsewhere, and short
    done = subprocess.run(command, cwd=ROOT, env={**ENVIRONMENT, **sweep}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "data=mnist model=mlp" in done.stdout
    assert "val/elbo" in (tmp_path / "run" / "metrics.json").read_text()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*-run1"))
