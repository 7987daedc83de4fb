"""The way in which Lightning starts the other processes of a training.

Lightning repeats the command line of the first process, ``sys.argv``. In a sweep this is the whole sweep. With some
backends it does not notice that a process has ended. Both are functions of a module of Lightning, without a setting.
They are replaced while the processes of one training run.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced_launcher(observe: Callable[..., None], command: Sequence[str] | None, directory: str) -> Iterator[None]:
    """Replaces these functions inside the context.

    Args:
        observe: called with the started processes, as ``child_processes``.
        command: starts another process; ``None`` for the command of Lightning.
        directory: in which it starts.
    """
    from lightning.pytorch.strategies.launchers import subprocess_script

    functions: dict[str, Any] = {"_launch_process_observer": observe}
    if command is not None:
        functions["_hydra_subprocess_cmd"] = lambda local_rank: (command, directory)
    originals = {name: getattr(subprocess_script, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(subprocess_script, name, function)
        yield
    finally:
        for name, function in originals.items():
            setattr(subprocess_script, name, function)
