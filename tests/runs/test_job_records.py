"""What a sweep knows of its jobs, wherever their folders are."""

from pathlib import Path

from omegaconf import OmegaConf

from vaelab.runs import job_records, sweep_folder
from vaelab.runs.run_folder import runs_in
from vaelab.runtime.files import write_json


def _job(sweep: Path, folder: str, number: int, *typed: str, elbo: float | None = None, failure: str = "") -> None:
    """A job that starts, and ends as told."""
    path = sweep / folder
    record = job_records.begin(sweep, path, number, typed)
    if failure:
        job_records.fail(sweep, record, failure)
    if elbo is not None:
        path.mkdir(parents=True)
        OmegaConf.save({"overrides": list(typed)}, path / "config.yaml")
        write_json({"val/elbo": elbo, "unit": "nats"}, path / "metrics.json")


def _status(sweep: Path) -> list[tuple[int, str, str]]:
    return [(job.number, job.name, job.status) for job in sweep_folder.read(sweep)]


def test_a_job_is_found_wherever_its_folder_is(tmp_path: Path) -> None:
    _job(tmp_path / "sweep", "seed=1,latent_dim=2", 0, "seed=1", elbo=-3.0)
    _job(tmp_path / "sweep", "a/b/c/d/e", 1, "seed=2", elbo=-2.0)
    _job(tmp_path / "sweep", "../elsewhere", 2, "seed=3", elbo=-1.0)
    _job(tmp_path / "sweep", "gone", 3, "seed=4", failure="no reason")
    assert _status(tmp_path / "sweep") == [
        (2, "../elsewhere", "done"),
        (1, "a/b/c/d/e", "done"),
        (0, "seed=1,latent_dim=2", "done"),
        (3, "gone", "failed"),
    ]
    for folder in ("a/b/c/d/e", "../elsewhere"):
        (tmp_path / "sweep" / folder / "checkpoints").mkdir()
        (tmp_path / "sweep" / folder / "checkpoints" / "best.ckpt").touch()
    assert set(runs_in(tmp_path / "sweep")) == {"a/b/c/d/e", "../elsewhere"}


def test_a_later_attempt_replaces_an_earlier_one_unless_it_fails(tmp_path: Path) -> None:
    _job(tmp_path, "0", 0, "latent_dim=-1", failure="negative")
    _job(tmp_path, "0", 0, "latent_dim=-2", failure="negative again")
    assert _status(tmp_path) == [(0, "0", "failed")]
    _job(tmp_path, "0", 0, "latent_dim=2", elbo=-1.0)
    assert _status(tmp_path) == [(0, "0", "done")]
    _job(tmp_path, "0", 0, "latent_dim=3", failure="the folder holds another run")
    assert _status(tmp_path) == [(0, "0", "done")]
    assert [job.overrides for job in sweep_folder.read(tmp_path)] == [{"latent_dim": "2"}]
    _job(tmp_path, "0", 0, "latent_dim=2")
    assert _status(tmp_path) == [(0, "0", "done")]


def test_jobs_that_share_a_folder_are_all_counted(tmp_path: Path) -> None:
    _job(tmp_path, "x", 0, "seed=1", elbo=-1.0)
    for number in (1, 2):
        _job(tmp_path, "x", number, f"seed={number + 1}", failure="the folder holds another run")
    assert _status(tmp_path) == [(0, "x", "done"), (1, "x", "failed"), (2, "x", "failed")]


def test_what_was_typed_is_text(tmp_path: Path) -> None:
    """An interpolation in it names a setting, which the list of overrides does not have."""
    _job(tmp_path, "0", 0, "data.eval_batch_size='${latent_dim}'", failure="no reason")
    assert sweep_folder.read(tmp_path)[0].overrides == {"data.eval_batch_size": "'${latent_dim}'"}
    old = tmp_path / "old"
    (old / "3" / ".hydra").mkdir(parents=True)
    (old / "3" / ".hydra" / "overrides.yaml").write_text("- data.eval_batch_size='${latent_dim}'\n")
    assert sweep_folder.read(old)[0].overrides == {"data.eval_batch_size": "'${latent_dim}'"}


def test_a_damaged_record_costs_only_itself(tmp_path: Path) -> None:
    _job(tmp_path, "0", 0, "seed=1", elbo=-1.0)
    (tmp_path / ".jobs" / "damaged.json").write_text("{")
    (tmp_path / ".jobs" / "another.json").write_text("[1]")
    assert _status(tmp_path) == [(0, "0", "done")]
