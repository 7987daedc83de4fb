"""What a test may need that a machine may lack, and the skips that are failures where everything should be there.

A test that needs such a thing is marked ``@pytest.mark.needs("gpu")``; a fixture calls ``missing("data", why)``. With
``--only-excused-skips`` any other skip fails, and so do those of EVERYWHERE, which .ci/run installs.

PYTEST_DONT_REWRITE: it asserts nothing, and conftest.py imports it before pytest does.
"""

import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from _pytest.outcomes import Skipped
from _pytest.reports import CollectReport, TestReport

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str | None:
    """The browser on the PATH."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def mnist() -> str | None:
    """The folder that holds MNIST."""
    folder = os.environ.get("DATA_DIR", "")
    return folder if (Path(folder) / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file() else None


def _gpu() -> bool:
    import torch  # here, for pytest loads this file before it knows that a test needs torch

    return torch.cuda.is_available()


# Each kind: whether it is here, and what a person can do where it is not.
NEEDS: dict[str, tuple[Callable[[], object], str]] = {
    "gpu": (_gpu, "needs a GPU"),
    "data": (mnist, "needs the real MNIST: set DATA_DIR to the folder that holds it"),
    "slurm": (lambda: shutil.which("sbatch"), "needs Slurm: sbatch is not on the PATH"),
    "browser": (browser, f"needs a browser: none of {', '.join(BROWSERS)} is on the PATH"),
}
EVERYWHERE = {"browser"}


class Missing(Skipped):
    """A skip for the want of one of NEEDS."""

    __module__ = "builtins"  # as those of pytest, which are printed without it

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence, allow_module_level=True)
        self.kind = kind


def require(kind: str) -> None:
    """Skips the test, or all that use the fixture, unless the machine has this.

    Raises:
        Missing: it has not.
    """
    is_here, sentence = NEEDS[kind]
    if not is_here():
        raise Missing(kind, sentence)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--only-excused-skips",
        action="store_true",
        help=f"fail where a test skips for anything but a missing {', '.join(sorted(set(NEEDS) - EVERYWHERE))}",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(kind): skip where the machine lacks it; one of {', '.join(NEEDS)}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        require(mark.args[0])


def _is_excused(call: pytest.CallInfo[object] | None) -> bool:
    error = call.excinfo.value if call is not None and call.excinfo is not None else None
    return isinstance(error, Missing) and error.kind not in EVERYWHERE


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, TestReport, TestReport]:
    report = yield
    if item.config.getoption("--only-excused-skips") and report.skipped and not hasattr(report, "wasxfail"):
        _fail(report, call)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, CollectReport, CollectReport]:
    report = yield
    if collector.config.getoption("--only-excused-skips") and report.skipped:
        _fail(report, getattr(report, "call", None))
    return report


def _fail(report: TestReport | CollectReport, call: pytest.CallInfo[object] | None) -> None:
    if not _is_excused(call):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"a skip that nothing excuses: {reason}"
