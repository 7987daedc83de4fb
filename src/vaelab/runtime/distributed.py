"""Several processes of one training: how they start, agree, and end together.

Lightning starts a training's further processes by typing the first one's command line again, ``sys.argv``. Of a sweep
that is the whole sweep: the second process would begin with the first job, whichever job the first process is at, and
under a launcher it would not even be this program's line. Here they are started with the job's own settings and in its
folder, as :func:`command` says, whatever started the job. When the job is over, so are they, and nothing is left of
them in this process (:func:`together`): the next job of a sweep starts its own.

Processes that ``torchrun`` or ``srun`` starts all have the same command line, and go through a sweep side by side. They
agree on the moment at which it began, by which folders are named (:func:`started`), and meet anew for each job.

torch is imported by the functions alone, since ``--help`` need not wait for it.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig

from vaelab.runtime.errors import UserError
from vaelab.runtime.overrides import quoted
from vaelab.runtime.paths import ROOT
from vaelab.runtime.workarounds.lightning_processes import replaced_launcher

if TYPE_CHECKING:
    import lightning as L
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

_PARENT = "VAELAB_PARENT"  # in a process that another one started: which
# What Lightning leaves behind in the environment, from which the next trainer would conclude that it is not alone.
_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_TORCHRUNS_STORE = "TORCHELASTIC_USE_AGENT_STORE"
_PATIENCE = 20  # seconds that a process has to notice that another one has ended, before it is ended too
_LOST = re.compile(r"connection|socket|peer|gloo|nccl|timed? ?out|process group", re.IGNORECASE)


def rank() -> int:
    """The number of this process among those of its training, 0 for the first."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(os.environ.get("SLURM_PROCID", 0))
    return int(os.environ.get("LOCAL_RANK", 0)) + int(os.environ.get("NODE_RANK", 0))


def is_first() -> bool:
    """Whether this is the process that writes and says what there is to be written and said."""
    return rank() == 0


def has_parent() -> bool:
    """Whether the first process of this training has started this one, and reports what becomes of it."""
    return os.environ.get(_PARENT, str(os.getpid())) != str(os.getpid())


def torchrun_processes() -> int | None:
    """How many processes ``torchrun`` has started for this command; ``None`` where it has not."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def start_time() -> datetime:
    """When this command began, by the clock of the first of its processes."""
    if (torchrun_processes() or 1) > 1:
        found = _torchruns_store().compare_set("vaelab/started", "", datetime.now().isoformat())
        return datetime.fromisoformat(found.decode())
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_JOB_START_TIME" in os.environ:
        return datetime.fromtimestamp(int(os.environ["SLURM_JOB_START_TIME"])).replace(
            microsecond=int(os.environ.get("SLURM_STEP_ID", 0)) % 10**6
        )
    return datetime.now()


def _torchruns_store() -> "TCPStore":
    """Where the processes that torchrun has started can leave each other notes."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def _meet(folder: str) -> dict[str, str]:
    """Where the processes that torchrun has started meet for one job, as variables of the environment.

    In torchrun's own store there still are the addresses by which they found each other for the job before.

    Raises:
        UserError: the first process is not at this job.
    """
    from lightning.fabric.plugins.environments.lightning import find_free_network_port

    store = _torchruns_store()
    if is_first():
        store.set(f"vaelab/{folder}", str(find_free_network_port()))
    try:
        return {"MASTER_PORT": store.get(f"vaelab/{folder}").decode(), _TORCHRUNS_STORE: "False"}
    except RuntimeError as error:
        raise UserError(
            f"process {rank()} has waited in vain for the first one in {folder}: all of them must have the same run "
            "folder, on a disk that they share; type hydra.run.dir=..."
        ) from error


def rank_overrides() -> list[str]:
    """What Hydra has to be told in every process but the first: to leave the folder to that, and the screen."""
    if is_first():
        return []
    quiet = ["hydra.output_subdir=null", "hydra.job_logging.root.handlers=[file]", "hydra/hydra_logging=none"]
    return [f"hydra.job.name=train_rank{rank()}", *quiet]


def command(config: Any, checkpoint: str | None) -> list[str]:
    """What starts another process of the job that is running: its settings, its folder, no sweep.

    Args:
        config: Hydra's of the job.
        checkpoint: from which it goes on.
    """
    typed = list(config.overrides.task)
    if checkpoint is not None:
        typed = [text for text in typed if text.lstrip("+").partition("=")[0] != "ckpt_path"]
        typed.append(f"ckpt_path={quoted(checkpoint)}")
    folders = [source.path for source in config.runtime.config_sources if source.provider == "command-line"]
    options = [f"--config-name={config.job.config_name}", *(f"--config-dir={path}" for path in folders[:1])]
    script = str(ROOT / "src" / "train.py")
    return [sys.executable, script, *options, *typed, f"hydra.run.dir={quoted(config.runtime.output_dir)}"]


def stay_with_parent() -> None:
    """Ends this process soon after the one that started it, however that ended."""
    if not has_parent():
        return
    parent = int(os.environ[_PARENT])

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(5)  # it is the parent's part to say something, and this one's to end by itself, if it can
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="stay-with-parent").start()


@contextlib.contextmanager
def process_group(trainer: "L.Trainer", checkpoint: str | None = None) -> Iterator[None]:
    """Several processes train inside; afterwards this one is alone again.

    Args:
        trainer: of this process.
        checkpoint: from which the training goes on.

    Raises:
        UserError: another process has ended before the training had.
    """
    if trainer.world_size == 1:
        yield
        return
    before = {name: os.environ.get(name) for name in (*_VARIABLES, _TORCHRUNS_STORE, _PARENT)}
    family = _ChildProcesses(trainer.world_size)
    if os.environ.get(_TORCHRUNS_STORE) == "True":
        os.environ.update(_meet(trainer.default_root_dir))
    line = None
    if HydraConfig.initialized():
        line = command(HydraConfig.get(), checkpoint)
        os.environ.setdefault(_PARENT, str(os.getpid()))
    try:
        with replaced_launcher(family.watch, line, os.getcwd()):
            yield
    except RuntimeError as error:
        reason = family.loss() if _LOST.search(str(error)) else None
        if reason is None:
            raise
        raise UserError(reason) from error
    finally:
        family.end()
        for variable, value in before.items():
            os.environ.pop(variable, None)
            if value is not None:
                os.environ[variable] = value


class _ChildProcesses:
    """The processes that this one has started."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.children: Sequence[subprocess.Popen[bytes]] = ()
        self._over = threading.Event()

    def watch(self, child_processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        """Ends this process if it waits in vain for one that has ended: some backends do not notice."""
        self.children = child_processes

        def watch() -> None:
            while not self._over.wait(0.5):
                if self._ended() and not self._over.wait(_PATIENCE):
                    print(f"error: {self._ended()}", file=sys.stderr, flush=True)
                    self._kill()
                    os._exit(1)

        threading.Thread(target=watch, daemon=True, name="watch-children").start()

    def _ended(self) -> str:
        """Which process has ended, and how, other than by having done its part."""
        for number, child in enumerate(self.children, 1):
            if code := child.poll():
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                log = "" if code < 0 else f" (train_rank{number}.log may say why)"
                return f"process {number} of {self.processes} {how}{log}: {_WHAT_NOW}"
        return ""

    def loss(self) -> str | None:
        """Why the connection to another process was lost."""
        deadline = time.monotonic() + 5
        while self.children and time.monotonic() < deadline:
            if ended := self._ended():
                return ended
            time.sleep(0.1)
        return None if self.children else f"another process of the training has ended: {_WHAT_NOW}"

    def end(self) -> None:
        """Leaves the group of processes, which those that wait for this one notice, and sees them end."""
        import torch

        self._over.set()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        deadline = time.monotonic() + _PATIENCE
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(deadline - time.monotonic(), 0))
        self._kill()

    def _kill(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()


_WHAT_NOW = "ckpt_path=<this run's folder> and the same settings go on from its last checkpoint"
