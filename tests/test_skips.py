"""Where everything should be there, a skip is a failure, wherever it comes from."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TESTS = {
    "test_marks": """
        import pytest
        from tests.skips import NEEDS
        NEEDS["gpu"] = NEEDS["slurm"] = (lambda: False, "not here")

        @pytest.mark.needs("gpu")
        def test_excused(): assert False

        @pytest.mark.needs("slurm")
        def test_also_excused(): assert False

        @pytest.mark.skipif(True, reason="marked")
        def test_marked(): pass

        @pytest.mark.xfail(reason="known")
        def test_expected(): assert False
    """,
    "test_fixtures": """
        import pytest
        from tests.skips import NEEDS, require

        @pytest.fixture(scope="module", params=["data", "browser"])
        def needed(request):
            NEEDS[request.param] = (lambda: False, "not here")
            require(request.param)

        def test_fixture(needed): assert False

        def test_package(): pytest.importorskip("there_is_no_such_package", reason="inside")

        def test_passes(): pass
    """,
    "test_module": """
        import pytest
        pytest.importorskip("there_is_no_such_package", reason="at the top")
        def test_never(): pass
    """,
    "test_excused_module": """
        import pytest
        from tests.skips import NEEDS, require
        NEEDS["data"] = (lambda: False, "not here")
        require("data")
        def test_never(): pass
    """,
}
UNEXCUSED = ["Skipped: marked", "Missing: not here", "Skipped: inside", "Skipped: at the top"]


def _pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    for name, text in TESTS.items():
        lines = [line[8:] for line in text.splitlines()]
        (folder / f"{name}.py").write_text("\n".join(lines))
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra --strict-markers -p tests.skips -p no:cacheprovider\n")
    words = [sys.executable, "-m", "pytest", "--rootdir", str(folder), *options, str(folder)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_skips_that_nothing_excuses_fail_and_are_listed(processes: str, tmp_path: Path) -> None:
    done = _pytest(tmp_path, "--only-excused-skips", "--continue-on-collection-errors", processes)
    assert done.returncode == 1, done.stdout + done.stderr
    listed = [line for line in done.stdout.splitlines() if line.startswith(("ERROR ", "FAILED "))]
    assert len(listed) == len(UNEXCUSED), done.stdout
    for reason in UNEXCUSED:
        assert f"a skip that nothing excuses: {reason}" in done.stdout
    assert "1 passed, 4 skipped, 1 xfailed" in done.stdout.replace("1 failed, ", "")


def test_without_the_option_they_are_skips(tmp_path: Path) -> None:
    done = _pytest(tmp_path, "-n0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 8 skipped, 1 xfailed" in done.stdout
