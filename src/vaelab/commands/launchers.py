"""Support for launchers that run several jobs of a sweep at once: cores, GPUs, signals and readable output.

``hydra/launcher=joblib`` runs jobs in worker processes of this machine, ``submitit_slurm`` as jobs of a cluster, and
``submitit_local`` as such jobs on this machine. The launchers are plugins of Hydra.
"""

import contextlib
import importlib.util
import math
import multiprocessing
import os
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.runtime import console, distributed, environment, signals
from vaelab.runtime.errors import UserError
from vaelab.runtime.overrides import plain
from vaelab.runtime.paths import ROOT, options_of
from vaelab.runtime.signals import Stopped

# Variables that say which run or which process this is. The jobs of a sweep would inherit them, and be the same one.
_OF_A_RUN = ("WANDB_RUN_ID", "WANDB_NAME", "WANDB_RUN_NAME", "WANDB_RESUME", "WANDB_FORK_FROM")
_OF_A_PROCESS = ("RANK", "LOCAL_", "NODE_RANK", "GROUP_", "ROLE_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_")
_OF_A_CLUSTER_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")  # if this command runs in one


class Interrupted(Exception):  # noqa: N818  (no error)
    """A signal, ``signum``, has ended a job of a parallel sweep, or prevented its start."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def number_of_jobs(overrides: Sequence[str], params: Mapping[str, str] | None) -> float:
    """The number of jobs of a sweep, from its overrides and its sweeper's; infinite if only the sweeper knows it."""
    count = 1
    typed = [*(f"{key}={value}" for key, value in (plain(params) or {}).items()), *plain(overrides)]
    try:
        for override in OverridesParser.create().parse_overrides(typed):
            if override.is_sweep_override():
                count *= len(list(override.sweep_string_iterator()))
    except HydraException:  # a glob, an interval
        return math.inf
    return count


def cores() -> int:
    """The number of cores that this process may use."""
    from joblib import cpu_count  # respects the quotas of containers

    return int(cpu_count())


def _jobs_at_once(overrides: Sequence[str], params: Mapping[str, str] | None) -> int:
    return int(min(cores(), number_of_jobs(overrides, params)))


OmegaConf.register_new_resolver("jobs_at_once", _jobs_at_once, replace=True)


def hide_schema_warning() -> None:
    """Hides a warning of Hydra about our files that extend the settings of a plugin under the same name."""
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


hide_schema_warning()  # the processes of a launcher compose the configuration again


def check(hydra: DictConfig, sweep: bool) -> None:
    """Refuses a launcher or sweeper that is not installed, does not work on this machine, or has no sweep.

    Args:
        hydra: the part ``hydra`` of the configuration.
        sweep: whether the command is a sweep.

    Raises:
        UserError: with what to type instead.
    """
    if sweep and environment.variable("WANDB_SWEEP_ID"):
        raise UserError("wandb agent starts one training for each run of its sweep: leave -m out of its command")
    if sweep and hydra.runtime.choices["hydra/launcher"] != "basic" and _is_one_of_several():
        raise UserError(
            f"hydra/launcher={hydra.runtime.choices['hydra/launcher']} starts the processes of its jobs: type this "
            "command without torchrun or srun"
        )
    _check_folders(hydra, sweep)
    for group in ("launcher", "sweeper"):
        option = hydra.runtime.choices[f"hydra/{group}"]
        if option == "basic":
            continue
        if not sweep and not distributed.has_parent():  # a process with a parent belongs to a job of a sweep
            raise UserError(f"hydra/{group}={option} is for sweeps: type -m before all settings")
        name = option.partition("_")[0]
        needed = "optuna" if group == "sweeper" else f"hydra_plugins.hydra_{name}_launcher"
        if option in options_of(f"hydra/{group}") and importlib.util.find_spec(needed) is None:
            extra = "ray" if name == "ray" else "sweeps"
            raise UserError(f'hydra/{group}={option} is not installed: type pip install -e ".[{extra}]"')
    if hydra.runtime.choices["hydra/launcher"] == "submitit_slurm" and shutil.which("srun") is None:
        raise UserError(
            "hydra/launcher=submitit_slurm: there is no Slurm here (srun is not found); type hydra/launcher=joblib for "
            "this machine's cores, or submitit_local to try it"
        )


def _check_folders(hydra: DictConfig, sweep: bool) -> None:
    """Refuses empty names of folders, which would mean the working directory or the folder of the whole sweep."""
    examples = {"sweep.dir": "mine", "sweep.subdir": "'${hydra.job.num}'"} if sweep else {"run.dir": "mine"}
    for key, example in {**examples, "output_subdir": "null"}.items():
        try:
            value = OmegaConf.select(hydra, key)
        except OmegaConfBaseException:  # known only in a job
            continue
        if isinstance(value, str) and value.strip() in ("", "." if key == "sweep.subdir" else ""):
            raise UserError(f"hydra.{key} is no name of a folder: type hydra.{key}={example}, or leave it out")


def _is_one_of_several() -> bool:
    """Whether torchrun or srun has started several processes with this command."""
    return (distributed.torchrun_processes() or 1) > 1 or distributed.rank() > 0


def prepare(hydra: DictConfig) -> None:
    """Sets signal handlers and environment variables before a sweep starts."""
    launcher = hydra.runtime.choices["hydra/launcher"]
    if removed := environment.remove(_OF_A_RUN):
        console.print_line(f"{' and '.join(removed)}: left out, because each job of a sweep is a run of its own")
    if launcher != "basic":
        environment.remove(_OF_A_PROCESS)
    if launcher.startswith("submitit"):
        environment.remove(_OF_A_CLUSTER_JOB, kept="SLURM_CONF")
    if launcher == "joblib":
        signals.handle(_end_workers)
    elif launcher != "basic":  # other launchers pass only the environment to their processes
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if launcher == "submitit_slurm":
        os.environ.setdefault("OMP_NUM_THREADS", str(hydra.launcher.cpus_per_task or 1))
    elif launcher == "submitit_local":
        threads = cores() // _jobs_at_once(hydra.overrides.task, hydra.sweeper.params)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def _end_workers(signum: int, frame: FrameType | None) -> None:
    """Asks the workers to end their jobs, for which the sweep waits; a second Ctrl-C ends the sweep at once."""
    if signals.ask(signum):
        for worker in multiprocessing.active_children():
            with contextlib.suppress(ProcessLookupError, TypeError):  # it has just ended
                os.kill(worker.pid, signal.SIGTERM)  # type: ignore[arg-type]


def _gpu(number: int) -> str:
    """The GPU of a job, as ``CUDA_VISIBLE_DEVICES``: jobs take the visible GPUs in turn.

    A worker keeps the GPU of its first job, because CUDA reads the variable once.
    """
    import torch

    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    count = torch.cuda.device_count()
    names = [name.strip() for name in seen.split(",")] if seen else [str(index) for index in range(count)]
    return names[number % count] if count else seen


@contextlib.contextmanager
def job() -> Iterator[None]:
    """The context of a job of a sweep, with the GPU, the output and the signal handlers that its launcher needs.

    A signal ends the job of a worker, not the worker: if a worker ended, the launcher would kill the others while they
    write their checkpoints. The worker does not start later jobs.

    Raises:
        Interrupted: a signal has ended this job or an earlier one.
    """
    config = HydraConfig.get() if HydraConfig.initialized() else None
    if config is None or config.mode != RunMode.MULTIRUN or config.runtime.choices["hydra/launcher"] != "joblib":
        yield
        return
    if signals.asked:
        raise Interrupted(signals.asked)
    from rich import reconfigure

    reconfigure(force_terminal=False)  # progress bars of several processes would overwrite each other
    console.prefix = f"job {config.job.num}: "
    os.environ["CUDA_VISIBLE_DEVICES"] = _gpu(config.job.num)
    try:
        with signals.raised(after=signals.record):
            yield
    except Stopped as stopped:
        raise Interrupted(stopped.signum) from None
    except (KeyboardInterrupt, SystemExit):  # e.g. because Slurm starts the whole sweep again
        raise Interrupted(signals.asked or signal.SIGINT) from None
    finally:
        console.prefix = ""  # with one worker, this process also prints the lines of the sweep


def explain(error: BaseException) -> str | None:
    """The line about an error of a launcher; ``None`` for any other error.

    The class is recognised by its name, because its package may not be installed.
    """
    match type(error).__name__:
        case "TerminatedWorkerError":
            return (
                "a worker process was killed, often because the memory was full: type hydra.launcher.n_jobs=<fewer> "
                "and hydra.sweep.dir=<this sweep's folder>, which runs only the missing jobs"
            )
        case "UncompletedJobError" | "FailedJobError":
            return (
                "a job ended without a result; its output is in .submitit in the sweep's folder, and the same command "
                "with hydra.sweep.dir=<that folder> runs the missing jobs"
            )
    return None
