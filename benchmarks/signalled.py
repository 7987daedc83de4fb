"""A command that gets a signal in a chosen phase: ``python benchmarks/signalled.py SIGTERM test <script> <settings>``.

The process sends the signal to itself when it first calls the function of that phase.
"""

import functools
import importlib
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

# The function of each phase, and the call of it in which the signal comes.
PHASES = {
    "composition": ("vaelab.commands.cli._Command._check", 1),
    "checks": ("vaelab.commands.config_validation._check_all", 1),
    "data": ("vaelab.data.datamodule.ImageDataModule.setup", 1),
    "sanity check": ("vaelab.training.sanity_check.check_one_batch", 1),
    "start": ("vaelab.training.lightning_module.VAEModule.on_fit_start", 1),
    "training": ("vaelab.training.lightning_module.VAEModule.training_step", 6),
    "validation": ("vaelab.training.lightning_module.VAEModule.validation_step", 1),
    "last step": ("vaelab.training.lightning_module.VAEModule.on_train_end", 1),
    "test": ("vaelab.training.lightning_module.VAEModule.test_step", 1),
    "pictures": ("vaelab.training.callbacks.gallery.log_image", 2),
    "report": ("vaelab.visualization.report.run_page.page", 1),
    "next job": ("vaelab.commands.cli._Jobs.__call__", 2),
}


def send_in(phase: str, signum: int) -> None:
    """Makes this process send itself the signal in that phase."""
    name, call = PHASES[phase]
    owner, _, function = name.rpartition(".")
    module, _, part = owner.rpartition(".")
    at: Any = getattr(importlib.import_module(module), part) if part[:2].strip("_")[:1].isupper() else None
    at = at or importlib.import_module(owner)
    original, calls = getattr(at, function), 0

    @functools.wraps(original)
    def signalled(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signum)
        return original(*args, **kwargs)

    setattr(at, function, signalled)


if __name__ == "__main__":
    chosen, where, script = sys.argv[1:4]
    sys.argv = sys.argv[3:]
    sys.path[0] = str(Path(script).parent)
    send_in(where, signal.Signals[chosen])
    runpy.run_path(script, run_name="__main__")
