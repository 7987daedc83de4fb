"""The allocator keeps what is freed, where there is one that can be told to."""

import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FAULTS = """
import sys; sys.path.insert(0, {src!r})
import resource, torch
from vaelab.memory import keep_freed_memory
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
