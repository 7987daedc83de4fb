"""The command line: what a user reads after a mistake, a failed sweep, Ctrl-C, `--help`."""

import errno
import importlib.util
import os
import pickle
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tests import warm
from tests.wrong_lines import CONFIGURATION, VALUES
from vaelab.commands import cli
from vaelab.commands.error_messages import explain
from vaelab.runtime import paths
from vaelab.runtime.errors import UserError
from vaelab.runtime.overrides import typed
from vaelab.runtime.paths import CONFIGS, ROOT

SRC = ROOT / "src"
HEAVY = {"torch", "torchvision", "lightning", "wandb"}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], int]:
    """Calls an entry point's main as `python src/<name>.py <typed>` would, and returns the exit code."""

    def call(name: str, typed: str) -> int:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setenv("VAELAB_ONE_LINE_ERRORS", "")
        monkeypatch.delenv("VAELAB_ONE_LINE_ERRORS")
        monkeypatch.setattr("vaelab.runtime.environment.load", lambda path: None)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *typed.split()])
        spec = importlib.util.spec_from_file_location(f"entry_{name}", SRC / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            module.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        return 0

    return call


@pytest.mark.parametrize(
    ("name", "typed", "said"), CONFIGURATION, ids=[f"{name} {typed}" for name, typed, _ in CONFIGURATION]
)
def test_a_mistake_is_one_line(
    name: str,
    typed: str,
    said: list[str],
    command: Callable[[str, str], int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    if typed.startswith("-m"):
        typed += f" hydra.sweep.dir={tmp_path}"  # where Hydra notes down the sweep before it looks at its jobs
    assert command(name, typed) == 1
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert "Traceback" not in out + err
    for fragment in said:
        assert fragment in err


@pytest.mark.parametrize(("name", "typed", "said"), VALUES, ids=[f"{name} {typed}" for name, typed, _ in VALUES])
def test_what_cannot_be_is_one_line_before_anything_is_trained(
    name: str,
    typed: str,
    said: list[str],
    command: Callable[[str, str], int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert command(name, f"{typed} hydra.run.dir={tmp_path}") == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    for fragment in said:
        assert fragment in err
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("default", "line"),
    [
        ("override /model: cnov", "error: there is no model=cnov; did you mean model=conv? "),
        ("/model@other: cnov", "error: experiment/mine.yaml: there is no model=cnov; did you mean model=conv? "),
    ],
)
def test_an_unknown_option_in_a_file(default: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\ndefaults:\n  - {default}\n")
    run = python(SRC / "train.py", "--config-dir", tmp_path, "experiment=mine")
    assert run.returncode == 1
    assert run.stderr.startswith(line)
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ("# caf\u00e9\n".encode("latin-1"), "mine.yaml, line 1 is no UTF-8 text: save the file as UTF-8"),
        (b"# @package _global_\nlatent_dim:\n\t- 3\n", "mine.yaml, line 3: found character '\\t'"),
        (b"# @package _global_\nlatent_dim: [3\n", "mine.yaml, line 3: expected ',' or ']'"),
        (b"\xef\xbb\xbf# @package _global_\nlatent_dim: 3\n", "mine.yaml begins with a byte order mark"),
    ],
)
def test_a_file_that_is_no_yaml(contents: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(contents)
    for sweep in ([], ["-m"]):
        run = python(
            SRC / "train.py", "--config-dir", tmp_path, *sweep, "experiment=mine", f"hydra.sweep.dir={tmp_path}"
        )
        assert run.returncode == 1
        assert run.stderr.startswith("error: ")
        assert said in run.stderr
        assert run.stderr.count("\n") == 1


def test_an_env_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_bytes("A=caf\u00e9\n".encode("latin-1"))
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.entry_point("train")(_task)()
    assert end.value.code == 1
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path}/.env, line 1 is no UTF-8 text: save the file as UTF-8 in an editor\n"
    )


# --- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train", ["model=mlp", "data=mnist", "trainer.max_epochs=", "optimizer.lr=", "-m latent_dim=", "ckpt_path="]),
        ("evaluate", ["run=latest", "accelerator=gpu", "data_dir="]),
        ("generate", ["run=latest", "what=samples", "images=", "files=", "count=", "seed="]),
        ("export", ["run=latest", "format=onnx", "license=", "tolerance="]),
        ("explore", ["run=latest", "images=", "open=false", "serve=true"]),
    ],
)
def test_help_teaches(
    name: str, said: list[str], command: Callable[[str, str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(name, "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    for fragment in [f"Usage: python src/{name}.py", "--cfg job", f"logs/{name}/runs/", *said]:
        assert fragment in out
    assert max(map(len, out.splitlines())) < 100
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        choices = compose(name, return_hydra_config=True).hydra.runtime.choices
    for group in choices:
        listed = [line.split()[1:] for line in out.splitlines() if line.startswith(f"  {group} ")]
        if group.startswith("hydra"):
            assert not listed
        elif "@" in group:
            assert f" {group}=" in out  # a group's options in a second place: an example says it
        else:
            assert " ".join(listed[0]).startswith(sorted(path.stem for path in (CONFIGS / group).iterdir())[0])


def test_options_that_do_not_fit_are_wrapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for group in ("model", "objective"):
        (tmp_path / group).mkdir()
    for n in range(20):
        (tmp_path / "model" / f"architecture_{n}.yaml").touch()
    monkeypatch.setattr(paths, "CONFIGS", tmp_path)
    lines = cli._options("model", "objective").splitlines()
    assert max(map(len, lines)) < 100
    assert lines[0].startswith("  model      architecture_0, ")
    assert lines[1].startswith("             architecture_")


@pytest.mark.parametrize("typed", [["--help"], ["model=cnov"], ["lr=1"]])
def test_torch_is_not_imported_to_answer(typed: list[str], tmp_path: Path) -> None:
    script = tmp_path / "watch.py"
    script.write_text(f"import runpy, sys\ntry: runpy.run_path({str(SRC / 'train.py')!r}, run_name='__main__')\n")
    with script.open("a") as file:
        file.write(f"finally: print('loaded:', sorted({HEAVY!r} & set(sys.modules)))\n")
    words = [sys.executable, str(script), *typed]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stdout.endswith("loaded: []\n")


# --- jobs ----------------------------------------------------------------------------------------------------------


def python(script: Path, *typed: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a script as a user would, from a folder that is not the project's."""
    return warm.run([script, *typed], cwd=script.parent, env=environment(**env))


def environment(**env: str) -> dict[str, str]:
    """The variables of a child process."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("HYDRA_FULL_ERROR", "VAELAB_ONE_LINE_ERRORS")}
    return {**inherited, "PYTHONPATH": str(SRC), **env}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A command whose job fails, or not, in the way its latent_dim says."""
    path = tmp_path / "command.py"
    path.write_text(
        dedent(
            f"""
            import logging, sys, time, warnings
            from hydra.core.hydra_config import HydraConfig
            from hydra.utils import instantiate
            from vaelab.commands.cli import entry_point
            from vaelab.runtime.errors import UserError

            @entry_point("train")
            def main(cfg):
                logging.getLogger("mine").info("begun")
                if cfg.latent_dim == -1:
                    raise UserError("latent_dim=-1 is negative:\\n  type latent_dim=20")
                if cfg.latent_dim == -2:
                    [][0]
                if cfg.latent_dim == -4:
                    cfg.seed
                if cfg.latent_dim == -5:
                    print("ready", flush=True)
                    time.sleep(60)
                if cfg.latent_dim == -7:
                    warnings.warn("a warning")
                if cfg.latent_dim == -8:
                    raise BrokenPipeError("not of stdout")

            if __name__ == "__main__":
                sys.argv += ["hydra.run.dir={tmp_path}/run", "hydra.sweep.dir={tmp_path}/sweep"]
                main()
            """
        )
    )
    return path


def test_a_users_error_in_a_job_is_one_line_also_in_its_log(script: Path) -> None:
    run = python(script, "latent_dim=-1")
    assert run.returncode == 1
    assert run.stderr == "error: latent_dim=-1 is negative: type latent_dim=20\n"
    log = (script.parent / "run" / "train.log").read_text()
    assert "[INFO][mine] begun" in log
    assert "[ERROR][vaelab.commands.cli] latent_dim=-1 is negative: type latent_dim=20" in log
    assert run.stdout.split() == ["INFO", "begun"]


def test_a_bug_keeps_its_traceback(script: Path) -> None:
    run = python(script, "latent_dim=-2")
    assert run.returncode == 1
    assert run.stderr.startswith("Traceback")
    assert "[][0]" in run.stderr
    assert run.stderr.endswith("IndexError: list index out of range\n")
    assert "IndexError: list index out of range" in (script.parent / "run" / "train.log").read_text()
    assert python(script, "latent_dim=-8").stderr.endswith("BrokenPipeError: not of stdout\n")


def test_hydra_full_error_gives_tracebacks_for_everything(script: Path) -> None:
    for setting, error in (("latent_dim=-1", "UserError"), ("latent_dm=3", "ConfigCompositionException")):
        run = python(script, setting, HYDRA_FULL_ERROR="1")
        assert run.returncode == 1
        assert run.stderr.startswith("Traceback")
        assert error in run.stderr
    inherited = python(script, "latent_dim=-1", HYDRA_FULL_ERROR="1", VAELAB_ONE_LINE_ERRORS="1")  # by a DDP rank
    assert inherited.stderr == "error: latent_dim=-1 is negative: type latent_dim=20\n"


def test_interpolations_nobody_takes(script: Path) -> None:
    run = python(script, "latent_dim=-4", "seed=${nope}")
    assert run.stderr == "error: seed: Interpolation key 'nope' not found\n"


def test_a_sweep_outlives_its_failures(script: Path) -> None:
    run = python(script, "-m", "latent_dim=-1,2,-2,8", "loss=mse")
    assert run.returncode == 1
    assert "#3 : latent_dim=8 loss=mse" in run.stdout
    lines = run.stderr.splitlines()
    first = "0 (latent_dim=-1 loss=mse)"
    second = "2 (latent_dim=-2 loss=mse)"
    assert lines[0] == f"job {first} failed: latent_dim=-1 is negative: type latent_dim=20"
    assert lines[1].startswith("Traceback")
    assert lines[-2] == f"job {second} failed: IndexError: list index out of range"
    assert lines[-1] == (
        f"2 of 4 jobs failed: {first}: latent_dim=-1 is negative: type latent_dim=20; "
        f"{second}: IndexError: list index out of range"
    )
    assert run.stderr.count("Traceback") == 1
    assert "Error executing job" not in run.stderr
    assert "negative" in (script.parent / "sweep" / "0" / "train.log").read_text()


@pytest.mark.parametrize(
    "typed",
    [
        "hydra.sweep.subdir=${hydra.job.override_dirname}",
        "hydra.sweep.subdir=a/${hydra.job.num}/b",
        "hydra.sweep.subdir=the_same",
        "hydra.output_subdir=null",
        "hydra/launcher=joblib",
        "hydra.job.chdir=true",
        "seed='${latent_dim}'",
    ],
)
def test_failures_are_counted_wherever_the_jobs_are(typed: str, script: Path) -> None:
    if "joblib" in typed:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason='needs pip install -e ".[sweeps]"')
    for _ in range(2):  # the second time, the sweep is resumed
        run = python(script, "-m", "latent_dim=-1,2,-1,8", typed)
        last = run.stderr.splitlines()[-1]
        assert last.startswith("2 of 4 jobs failed: 0 (latent_dim=-1"), run.stderr
        assert last.count("negative") == 2
        assert "Traceback" not in run.stderr
    assert "| -1 |" in (script.parent / "sweep" / "results.md").read_text()


def test_a_name_that_is_no_text_is_a_reason(script: Path) -> None:
    """Python has characters for the bytes of a file name that are not UTF-8; no file and no terminal has them."""
    text = script.read_text().replace('"latent_dim=-1 is negative', '"caf\\udce9.png is negative')
    script.write_text(text)
    run = python(script, "-m", "latent_dim=-1,2")
    assert "caf\\udce9.png is negative" in run.stderr.splitlines()[-1]
    for file in ("0/failed.txt", "0/train.log", "results.md", "results.csv", "report.html"):
        assert "caf\\udce9.png is negative" in (script.parent / "sweep" / file).read_text(encoding="utf-8")
    assert "Traceback" not in run.stderr
    assert "Logging error" not in run.stderr


def test_a_run_that_works_is_quiet_and_its_warnings_reach_the_log(script: Path) -> None:
    run = python(script, "latent_dim=-7")
    assert (run.returncode, run.stderr) == (0, "")
    assert "[WARNING][py.warnings]" in (script.parent / "run" / "train.log").read_text()


def test_ctrl_c_is_one_line(script: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(script), "latent_dim=-5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # What a script starts in the background, these tests perhaps, is born deaf to it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as child:
        assert child.stdout is not None
        while child.stdout.readline().strip() != "ready":
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, "stopped by SIGINT\n")


def test_a_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, str(SRC / "train.py"), "--help"]
    run = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment(), timeout=60)
    os.close(writer)
    assert (run.returncode, run.stderr) == (1, "")


# --- one error at a time -------------------------------------------------------------------------------------------


class MisconfigurationException(Exception):  # noqa: N818
    """Recognised by its name, as Lightning's is."""


def _fail(error: str) -> None:
    raise {"value": ValueError, "type": TypeError, "user": UserError, "import": ImportError}.get(error, KeyError)(
        "no good\nat all"
    )


def test_a_full_disk_is_known_by_its_kind_whatever_a_library_raises_from_it() -> None:
    """TensorBoard's logger says that a wrong value was logged."""
    wrapped = ValueError("you tried to log -1")
    wrapped.__cause__ = RuntimeError("between")
    assert explain(wrapped) is None
    wrapped.__cause__.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert str(explain(wrapped)).startswith("No space left on device: make room")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("value", "module.vae: no good"),
        ("type", "module.vae: no good"),
        ("import", "module.vae: no good"),
        ("user", "module.vae: no good at all"),
        ("bug", None),
    ],
)
def test_what_a_constructor_refuses_is_told_with_its_key(error: str, line: str | None) -> None:
    cfg = OmegaConf.create({"module": {"vae": {"_target_": f"{__name__}._fail", "error": error}}})
    with pytest.raises(InstantiationException) as caught:
        instantiate(cfg.module)
    assert explain(caught.value) == line


def test_a_target_that_is_not_there_is_told_with_its_key() -> None:
    cfg = OmegaConf.create({"module": {"vae": {"_target_": "vaelab.nope.Nope"}}})
    with pytest.raises(InstantiationException) as caught:
        instantiate(cfg.module)
    line = explain(caught.value)
    assert line is not None
    assert line.startswith("module.vae: Error loading 'vaelab.nope.Nope': ")
    assert "No module named 'vaelab.nope'" in line


def test_lightnings_own_refusals() -> None:
    hint = "; type accelerator=auto for what this machine has"
    assert explain(MisconfigurationException("No supported gpu backend found!")) == (
        f"No supported gpu backend found!{hint}"
    )
    assert explain(MisconfigurationException("No `val_dataloader`.\nMore.")) == "No `val_dataloader`"
    assert explain(KeyError("a bug")) is None


# --- folders and variables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "evaluate", "generate", "explore", "export"])
def test_each_run_has_a_folder_of_its_own(name: str) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        first, second = (compose(name, return_hydra_config=True) for _ in range(2))
    for cfg in (first, second):
        assert cfg.hydra.run.dir == cfg.hydra.run.dir  # read several times in a run
    assert first.hydra.run.dir != second.hydra.run.dir
    assert Path(first.hydra.run.dir).parent == ROOT / "logs" / name / "runs"
    assert Path(first.hydra.sweep.dir).parent == ROOT / "logs" / name / "multiruns"


@pytest.mark.parametrize(
    "value",
    [
        "dynamic",
        "logs/a b",
        "a=b",
        "it's",
        "back\\slash",
        "C:\\new\\",
        "\\'",
        "ü,(x)",
        "~/runs",
        "1e-3",
        "null",
        "",
        None,
        True,
        3,
        0.5,
        [1, 28],
    ],
)
def test_what_is_said_to_be_typed_can_be(value: Any) -> None:
    """Through a shell, and Hydra's grammar."""
    (word,) = shlex.split(typed("key", value))
    (override,) = OverridesParser.create().parse_overrides([word])
    found = override.value()
    assert (str(found) if isinstance(found, QuotedString) else found) == value


def test_variables_of_the_env_file_do_not_override(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("VAELAB_TEST_SET=file\nVAELAB_TEST_UNSET=file\n")
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    monkeypatch.setattr(cli._Command, "_run", lambda self: None)
    for name in ("HYDRA_FULL_ERROR", "VAELAB_ONE_LINE_ERRORS"):  # which every command sets
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("VAELAB_TEST_SET", "environment")
    monkeypatch.setenv("VAELAB_TEST_UNSET", "")
    monkeypatch.delenv("VAELAB_TEST_UNSET")
    cli.entry_point("train")(_task)()
    assert (os.environ["VAELAB_TEST_SET"], os.environ["VAELAB_TEST_UNSET"]) == ("environment", "file")


def _task(cfg: DictConfig) -> int:
    return int(cfg.latent_dim)


def test_jobs_can_be_sent_to_another_process() -> None:
    jobs = pickle.loads(pickle.dumps(cli._Jobs(_task)))
    assert jobs(OmegaConf.create({"latent_dim": 3})) == 3
