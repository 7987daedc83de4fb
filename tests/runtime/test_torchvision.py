"""The repair of torchvision: where it is needed it works, and it hides nothing else."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def _python(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    path = "; ".join(f"sys.path.insert(0, {str(p)!r})" for p in (ROOT / "src", *paths))
    return subprocess.run([sys.executable, "-c", f"import sys; {path}; {code}"], capture_output=True, text=True)


def _fake(folder: Path, first: str, later: str = "") -> Path:
    """A torchvision that does ``first`` when it is first imported and ``later`` when it is imported again."""
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(
        f"import sys, torchvision.part\ntries = sys.modules.setdefault('tries', [])\ntries.append(1)\n"
        f"if len(tries) == 1:\n    {first}\nelse:\n    {later or 'pass'}\n"
    )
    (folder / "torchvision" / "part.py").write_text("")
    return folder


def test_torchvision_and_lightning_import_after_the_package() -> None:
    done = _python(
        "import vaelab, lightning, torchvision.datasets, torchvision.utils; print(torchvision.datasets.MNIST)"
    )
    assert done.returncode == 0, done.stderr
    assert "MNIST" in done.stdout


def test_importing_the_package_is_cheap() -> None:
    done = _python(
        "import vaelab.commands.cli; heavy = 'torch', 'lightning', 'torchvision', 'wandb'; "
        "print([m for m in heavy if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_missing_operators_are_declared_and_the_import_is_tried_again(tmp_path: Path) -> None:
    fake = _fake(tmp_path, "raise RuntimeError('operator torchvision::nms does not exist')")
    done = _python("import vaelab, torchvision, torch; print(len(torchvision.tries), torch.ops.torchvision.nms)", fake)
    assert done.stdout.split() == ["2", "torchvision.nms"], done.stderr


def test_a_healthy_torchvision_is_left_alone(tmp_path: Path) -> None:
    done = _python(
        "import vaelab, torchvision; print(len(torchvision.tries), 'torch' in sys.modules)", _fake(tmp_path, "pass")
    )
    assert done.stdout.split() == ["1", "False"], done.stderr


def test_every_other_error_passes_through(tmp_path: Path) -> None:
    done = _python("import vaelab, torchvision", _fake(tmp_path, "raise RuntimeError('something else')"))
    assert done.returncode == 1
    assert done.stderr.strip().endswith("RuntimeError: something else")
