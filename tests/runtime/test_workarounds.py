"""Private parts of other libraries: they are used in two places only, are what they were, and are still needed."""

import ast
import importlib
import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus
from torch import nn

from tests.conftest import ROOT
from vaelab.runtime.workarounds import hydra, inductor, lightning_processes, tracing
from vaelab.runtime.workarounds.warning_filters import MESSAGES

SOURCE = ROOT / "src"
ALLOWED = ("runtime/workarounds/", "training/lightning_workarounds.py")


def _private_uses(path: Path) -> list[str]:
    """Private modules of other packages that a file imports, and private attributes of objects that are not its own."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("vaelab"):
            names = [*(node.module or "").split("."), *(name.name for name in node.names)]
            found += [name for name in names if name.startswith("_") and not name.startswith("__")]
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner not in ("self", "cls"):
                found.append(node.attr)
    return found


def _own_names() -> set[str]:
    """Private names that this package defines itself, and the public ones of named tuples."""
    names = {"_fields", "_replace", "_asdict"}
    for path in (SOURCE / "vaelab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return names


def test_private_parts_of_lightning_hydra_and_torch_are_used_in_two_places_only() -> None:
    own = _own_names()
    others = {"_trial_id", "_to_model", "_exit"}  # of Optuna and wandb-workspaces; os._exit is public
    for path in sorted(SOURCE.rglob("*.py")):
        if not any(allowed in path.as_posix() for allowed in ALLOWED):
            assert set(_private_uses(path)) <= own | others, path


def test_hydra_still_logs_a_line_about_the_error_of_a_job(caplog: pytest.LogCaptureFixture) -> None:
    job = JobReturn()
    job.status, job.return_value = JobStatus.FAILED, ValueError("wrong")
    original = inspect.getsource(inspect.getmodule(JobReturn))  # type: ignore[arg-type]
    assert "Error executing job with overrides" in original  # if not, the workaround can go
    hydra.raise_job_errors_quietly()
    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match="wrong"):
        _ = job.return_value
    assert caplog.text == ""
    assert isinstance(hydra.result_of(job), ValueError)


def test_hydra_parses_the_command_line_with_the_parser_that_is_asked_here() -> None:
    args = hydra.arguments_parser().parse_args(["-m", "a=1", "--config-dir", "conf"])
    assert (args.multirun, args.overrides, args.config_dir) == (True, ["a=1"], "conf")


def test_lightning_starts_processes_by_the_functions_that_are_replaced() -> None:
    subprocess_script: Any = importlib.import_module("lightning.pytorch.strategies.launchers.subprocess_script")
    source = inspect.getsource(subprocess_script._SubprocessScriptLauncher)
    assert "_launch_process_observer(self.procs)" in source
    assert "_hydra_subprocess_cmd(local_rank" in source
    before = subprocess_script._launch_process_observer
    with lightning_processes.replaced_launcher(print, ["a", "b"], "there"):
        assert subprocess_script._launch_process_observer is print
        assert subprocess_script._hydra_subprocess_cmd(1) == (["a", "b"], "there")
    assert subprocess_script._launch_process_observer is before


def test_torch_compile_takes_a_mode_or_options_and_not_both() -> None:
    with pytest.raises(RuntimeError, match="Either mode or options"):
        torch.compile(nn.Identity(), mode="max-autotune", options={"fallback_random": True})
    assert inductor.mode_options("reduce-overhead") == {"triton.cudagraphs": True}


def test_a_module_without_some_parts_shares_the_weights_of_the_others() -> None:
    whole = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    rest = tracing.without(whole, "1")
    assert list(dict(rest.named_children())) == ["0"]
    assert rest[0].weight is whole[0].weight
    assert len(whole) == 2


def test_operations_are_taken_apart_and_named() -> None:
    operation: Any = torch.ops.aten.addmm
    assert operation.default in tracing.decompositions([operation])
    assert tracing.operation_name(operation.default) == "addmm"


def test_messages_that_do_not_apply_are_left_out() -> None:
    assert len(MESSAGES) == len(set(MESSAGES)) > 3
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        for message in MESSAGES:
            warnings.filterwarnings("ignore", message=message)
        warnings.warn("The dirpath has changed from 'a' to 'b'", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(warning.message) for warning in left] == ["another"]
