"""Several processes of one training: how they start, agree, and end together.

Lightning starts the other processes of a training with the command line of the first one, ``sys.argv``. In a sweep this
is the whole sweep, so the second process would begin with the first job. Under a launcher, it is the command line of
another program. This module starts them with the settings of the job and in its folder instead, see :func:`command`.
They end with the job, and :func:`process_group` restores this process. So the next job of a sweep starts its own.

Processes that ``torchrun`` or ``srun`` starts all have the same command line, and run the jobs of a sweep side by side.
They agree on the start time, because it names the folders (:func:`start_time`). They connect again for each job.

The functions import torch, because ``--help`` does not need it.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig

from vaelab.runtime.environment import variable
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.overrides import plain, quoted
from vaelab.runtime.paths import ROOT
from vaelab.runtime.signals import Stopped
from vaelab.runtime.workarounds.lightning_processes import replaced_launcher

if TYPE_CHECKING:
    import lightning as L
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

_PARENT = "VAELAB_PARENT"  # the process that started this one
# Lightning does not remove these variables. The next trainer would conclude that a launcher has set them.
_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_COUNTS = ("RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "SLURM_NTASKS", "SLURM_PROCID")
_TORCHRUN_STORE = "TORCHELASTIC_USE_AGENT_STORE"
_TIMEOUT = 20  # seconds in which a process must notice that another one has ended, before it is killed
_LOST = re.compile(r"connection|socket|peer|gloo|nccl|timed? ?out|process group", re.IGNORECASE)


def _number(name: str, default: int = 0) -> int:
    """A number in the environment."""
    value = variable(name) or ""
    return int(value) if value.isdecimal() else default


def rank() -> int:
    """The rank of this process in its training; 0 for the first."""
    if "RANK" in os.environ:
        return _number("RANK")
    if _number("SLURM_NTASKS", 1) > 1 and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return _number("SLURM_PROCID")
    return _number("LOCAL_RANK") + _number("NODE_RANK")


def check_environment() -> None:
    """Refuses variables that count processes, if they are no numbers or do not fit together.

    Raises:
        UserError: with what to type instead.
    """
    for name in (*_COUNTS, *_VARIABLES):
        value = os.environ.get(name)
        if value is not None and name != "MASTER_ADDR" and not value.isdecimal():
            raise UserError(f"{name}={value} in the environment: it must be a number; type unset {name}")
    if _number("MASTER_PORT", 1) not in range(65536):
        raise UserError("MASTER_PORT in the environment: it must be at most 65535; type unset MASTER_PORT")
    if "RANK" in os.environ and _number("RANK") >= _number("WORLD_SIZE", 1):
        raise UserError(
            f"RANK={os.environ['RANK']} and WORLD_SIZE={os.environ.get('WORLD_SIZE', 1)} in the environment do not fit "
            "together: type unset RANK WORLD_SIZE, or start the processes with torchrun"
        )


def check_rank(trainer: "L.Trainer") -> None:
    """Refuses a process that is not one of those of its trainer, or that cannot find the first one.

    It would wait for the others, or print nothing, because it is not the first one.

    Raises:
        UserError: with what to type instead.
    """
    number = max(rank(), trainer.global_rank)
    lacks_port = trainer.world_size > 1 and "LOCAL_RANK" in os.environ and "MASTER_PORT" not in os.environ
    if trainer.global_rank != rank() or number >= trainer.world_size or lacks_port:
        given = [name for name in (*_COUNTS, *_VARIABLES) if name in os.environ]
        values = " ".join(f"{name}={os.environ[name]}" for name in given)
        raise UserError(
            f"{values} in the environment: this would be process {number} of {trainer.world_size}, counted from 0; "
            f"type unset {' '.join(given)}, or start the processes with torchrun"
        )
    if trainer.world_size > 1:
        _check_address(60 if trainer.num_nodes > 1 else 0)  # a cluster may still be naming its machines
        if number == 0 and os.environ.get(_TORCHRUN_STORE) != "True":  # else torchrun listens there
            _check_port()


def _check_address(patience: float) -> None:
    address = os.environ.get("MASTER_ADDR", "localhost")
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.getaddrinfo(address, None)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"MASTER_ADDR={address} in the environment: there is no such machine ({error.strerror}); type "
                    "unset MASTER_ADDR for processes on one machine, or set it to the name of the first machine"
                ) from error
            time.sleep(1)


def _check_port() -> None:
    """Tries the port of the first process. torch would print the stack of its own code."""
    port = _number("MASTER_PORT")  # 0: any free port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
            tried.listen()
        except OSError as error:
            raise UserError(
                f"MASTER_PORT={port} in the environment cannot be used ({error.strerror}): type unset MASTER_PORT on "
                "one machine, or set it to a free port on all machines"
            ) from error


def is_first() -> bool:
    """Whether this is the first process: only this one writes files and prints."""
    return rank() == 0


def has_parent() -> bool:
    """Whether the first process of this training has started this one. The first process then reports its errors."""
    return variable(_PARENT) not in (None, str(os.getpid()))


def torchrun_processes() -> int | None:
    """The number of processes that ``torchrun`` has started for this command; ``None`` without ``torchrun``."""
    return int(os.environ["WORLD_SIZE"]) if variable("TORCHELASTIC_RUN_ID") else None


def start_time() -> datetime:
    """The time at which this command started; the same in all its processes."""
    if (torchrun_processes() or 1) > 1:
        found = _torchrun_store().compare_set("vaelab/started", "", datetime.now().isoformat())
        return datetime.fromisoformat(found.decode())
    if int(variable("SLURM_NTASKS") or 1) > 1 and variable("SLURM_JOB_START_TIME"):
        return datetime.fromtimestamp(int(os.environ["SLURM_JOB_START_TIME"])).replace(
            microsecond=int(variable("SLURM_STEP_ID") or 0) % 10**6
        )
    return datetime.now()


def _torchrun_store() -> "TCPStore":
    """The key-value store that the processes of torchrun share."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def _rendezvous(folder: str) -> dict[str, str]:
    """The environment variables with which the processes of torchrun connect for one job.

    A job needs a port of its own, because the store of torchrun still has the addresses of the job before.

    Args:
        folder: of the job.

    Raises:
        UserError: the first process has not started this job.
    """
    from lightning.fabric.plugins.environments.lightning import find_free_network_port

    store = _torchrun_store()
    if is_first():
        store.set(f"vaelab/{folder}", str(find_free_network_port()))
    try:
        return {"MASTER_PORT": store.get(f"vaelab/{folder}").decode(), _TORCHRUN_STORE: "False"}
    except RuntimeError as error:
        raise UserError(
            f"process {rank()} has waited too long for the first process in {folder}: all processes must have the same "
            "run folder on a shared disk; type hydra.run.dir=..."
        ) from error


def rank_overrides() -> list[str]:
    """Settings of Hydra for this process. All but the first write a log file only, and nothing on the terminal."""
    if is_first():
        return []
    quiet = ["hydra.output_subdir=null", "hydra.job_logging.root.handlers=[file]", "hydra/hydra_logging=none"]
    return [f"hydra.job.name=train_rank{rank()}", *quiet]


def command(config: Any, checkpoint: str | None) -> list[str]:
    """The command that starts another process of the running job: with its settings and its folder, without the sweep.

    Args:
        config: of Hydra, for the job.
        checkpoint: from which the training is resumed; ``None`` for a new one.
    """
    overrides = list(plain(config.overrides.task))
    if checkpoint is not None:
        overrides = [text for text in overrides if text.lstrip("+").partition("=")[0] != "ckpt_path"]
        overrides.append(f"ckpt_path={quoted(checkpoint)}")
    folders = [source.path for source in config.runtime.config_sources if source.provider == "command-line"]
    options = [f"--config-name={config.job.config_name}", *(f"--config-dir={path}" for path in folders[:1])]
    script = str(ROOT / "src" / "train.py")
    return [sys.executable, script, *options, *overrides, f"hydra.run.dir={quoted(config.runtime.output_dir)}"]


def stay_with_parent() -> None:
    """Ends this process soon after its parent has ended, for whatever reason."""
    if not has_parent():
        return
    parent = int(os.environ[_PARENT])

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(5)  # time to end by itself
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="stay-with-parent").start()


@contextlib.contextmanager
def process_group(trainer: "L.Trainer", checkpoint: str | None = None) -> Iterator[None]:
    """Several processes train inside; afterwards there is only this one.

    Args:
        trainer: of this process.
        checkpoint: from which the training is resumed; ``None`` for a new one.

    Raises:
        UserError: another process has ended too early.
    """
    if trainer.world_size == 1:
        yield
        return
    before = {name: os.environ.get(name) for name in (*_VARIABLES, _TORCHRUN_STORE, _PARENT)}
    children = _ChildProcesses(trainer.world_size)
    if os.environ.get(_TORCHRUN_STORE) == "True":
        os.environ.update(_rendezvous(trainer.default_root_dir))
    line = None
    if HydraConfig.initialized():
        line = command(HydraConfig.get(), checkpoint)
        os.environ.setdefault(_PARENT, str(os.getpid()))
    try:
        with replaced_launcher(children.watch, line, os.getcwd()):
            yield
    except Stopped:
        children.stop()
        raise
    except RuntimeError as error:
        import torch

        if isinstance(error, torch.distributed.DistError) and not torch.distributed.is_initialized():
            raise _no_rendezvous(error, before) from error
        reason = children.failure() if _LOST.search(str(error)) else None
        if reason is None:
            raise
        raise UserError(reason) from error
    finally:
        children.end()
        for variable, value in before.items():
            os.environ.pop(variable, None)
            if value is not None:
                os.environ[variable] = value


def _no_rendezvous(error: RuntimeError, given: Mapping[str, str | None]) -> UserError:
    """The error of processes that do not find each other, with what to type.

    Args:
        error: of torch.
        given: the environment of this process before Lightning has set its own.
    """
    place = ":".join(str(os.environ.get(name)) for name in ("MASTER_ADDR", "MASTER_PORT"))
    names = [name for name in ("MASTER_ADDR", "MASTER_PORT") if given[name] is not None]
    what = f"type unset {' '.join(names)} on one machine; on several, set " if names else "set "
    return UserError(
        f"the processes cannot connect at {place} ({first_line(error).rstrip('.')}): {what}MASTER_ADDR to the name of "
        "the first machine, and MASTER_PORT to a free port"
    )


class _ChildProcesses:
    """The processes that this one has started.

    Args:
        processes: of the training, with this one.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.children: Sequence[subprocess.Popen[bytes]] = ()
        self._over = threading.Event()

    def watch(self, child_processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        """Ends this process if a child has failed and nothing else ends it: some backends wait forever."""
        self.children = child_processes

        def watch() -> None:
            while not self._over.wait(0.5):
                if self._failed_child() and not self._over.wait(_TIMEOUT):
                    print(f"error: {self._failed_child()}", file=sys.stderr, flush=True)
                    self._kill()
                    os._exit(1)

        threading.Thread(target=watch, daemon=True, name="watch-children").start()

    def _failed_child(self) -> str:
        """The child that has failed, with its exit code, and what to type; empty if none has."""
        for number, child in enumerate(self.children, 1):
            if code := child.poll():
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                log = "" if code < 0 else f" (train_rank{number}.log may say why)"
                return f"process {number} of {self.processes} {how}{log}: {_ADVICE}"
        return ""

    def failure(self) -> str | None:
        """The reason why the connection to another process was lost, or ``None``."""
        deadline = time.monotonic() + 5
        while self.children and time.monotonic() < deadline:
            if failed := self._failed_child():
                return failed
            time.sleep(0.1)
        return None if self.children else f"another process of the training has ended: {_ADVICE}"

    def stop(self) -> None:
        """Asks the processes to end, because a signal has reached this one."""
        for child in self.children:
            if child.poll() is None:
                child.terminate()

    def end(self) -> None:
        """Leaves the process group, so that processes that wait for this one notice, and waits for their end."""
        import torch

        self._over.set()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        deadline = time.monotonic() + _TIMEOUT
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(deadline - time.monotonic(), 0))
        self._kill()

    def _kill(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()


_ADVICE = "resume with ckpt_path=<this run's folder> and the same settings"
