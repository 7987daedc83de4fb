"""What a CPU is told before it trains: the allocator keeps what is freed, numbers next to nothing are nothing."""

import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from omegaconf import DictConfig

from tests.conftest import ROOT, composed
from vaelab.commands.config_validation import check_evaluation, check_training
from vaelab.runtime.errors import UserError
from vaelab.runtime.hardware import flushed_denormals, set_matmul_precision, uses_channels_last
from vaelab.runtime.validation import MatrixProducts

FAULTS = """
import sys; sys.path.insert(0, {src!r})
import resource, torch
from vaelab.runtime.hardware import keep_freed_memory
from vaelab.commands.config_validation import check_evaluation, check_training
from vaelab.runtime.validation import MatrixProducts
if {keep}:
    assert keep_freed_memory()
for _ in range(20): torch.ones(20_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): torch.ones(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc keeps memory its own way")
def test_freed_pages_are_not_asked_for_again() -> None:
    faults = {}
    for keep in (False, True):
        code = FAULTS.format(src=str(ROOT / "src"), keep=keep)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        faults[keep] = int(done.stdout)
    assert faults[True] < faults[False] / 10


def test_denormal_numbers_are_zero_inside_and_themselves_again_afterwards() -> None:
    tiny = torch.full((3,), 1e-39)
    with flushed_denormals() as can:
        if not can:
            pytest.skip("this processor cannot flush denormal numbers")
        assert (tiny * 0.5 == 0).all()
        assert torch.tensor(1e-37) * 0.5 > 0
    assert (tiny * 0.5 > 0).all()


def test_products_are_as_exact_as_they_are_told_to_be_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    set_matmul_precision("high")
    assert torch.get_float32_matmul_precision() == before or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        cases: list[tuple[MatrixProducts, bool]] = [("high", True), ("highest", False)]
        for precision, rounded in cases:
            set_matmul_precision(precision)
            assert torch.get_float32_matmul_precision() == precision
            assert torch.backends.cudnn.allow_tf32 == rounded
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("command", "check"), [("train", check_training), ("evaluate", check_evaluation)])
def test_products_of_an_exactness_that_does_not_exist_are_refused(
    command: str, check: Callable[[DictConfig], object]
) -> None:
    with pytest.raises(UserError, match="matmul_precision=low: it must be highest, high or medium"):
        check(
            composed(
                command, "matmul_precision=low", "run_dir=/nowhere", *(["run=latest"] if command == "evaluate" else [])
            )
        )


@pytest.mark.parametrize(
    ("setting", "precision", "kept"),
    [("auto", "32-true", False), ("auto", "bf16-mixed", True), (True, "32-true", True), (False, "16-mixed", False)],
)
def test_the_layout_is_chosen_and_said(
    setting: bool | Literal["auto"], precision: str, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "vaelab.runtime.hardware"):
        assert uses_channels_last(setting, precision) is kept
    assert ("channels last" in caplog.text) is kept
