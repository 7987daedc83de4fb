"""What the jobs of a sweep need where Hydra's launchers run several at once: cores, GPUs, signals, readable output.

``hydra/launcher=joblib`` runs them in worker processes of this machine, ``submitit_slurm`` as jobs of a cluster,
``submitit_local`` as the latter but here. The launchers themselves are Hydra's plugins.
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

from vaelab.runtime import distributed
from vaelab.runtime.errors import UserError
from vaelab.runtime.paths import ROOT, options_of

asked = 0  # the signal by which this process, or the sweep whose worker it is, was asked to end
_running = False  # whether a job is, in this worker


class Interrupted(Exception):  # noqa: N818  (no error)
    """A job of a parallel sweep that a signal ended, or that was not begun for its sake."""


def number_of_jobs(overrides: Sequence[str], params: Mapping[str, str] | None) -> float:
    """How many jobs a sweep's overrides make, and its sweeper's; infinity where only the sweeper can tell."""
    count = 1
    typed = [*(f"{key}={value}" for key, value in (params or {}).items()), *overrides]
    try:
        for override in OverridesParser.create().parse_overrides(typed):
            if override.is_sweep_override():
                count *= len(list(override.sweep_string_iterator()))
    except HydraException:  # a glob, an interval
        return math.inf
    return count


def cores() -> int:
    """The cores that this process may use."""
    from joblib import cpu_count  # knows of containers' quotas, too

    return int(cpu_count())


def _jobs_at_once(overrides: Sequence[str], params: Mapping[str, str] | None) -> int:
    return int(min(cores(), number_of_jobs(overrides, params)))


OmegaConf.register_new_resolver("jobs_at_once", _jobs_at_once, replace=True)


def quieten() -> None:
    """Leaves out what Hydra says of files of ours named like a plugin's own settings, which complete them."""
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


quieten()  # a launcher's processes compose the configuration anew


def check(hydra: DictConfig, sweep: bool) -> None:
    """Refuses a launcher or sweeper that is not installed, cannot work here, or would have nothing to do.

    Args:
        hydra: Hydra's part of the configuration.
        sweep: whether this is one.

    Raises:
        UserError: with what to type instead.
    """
    for group in ("launcher", "sweeper"):
        option = hydra.runtime.choices[f"hydra/{group}"]
        if option == "basic":
            continue
        if not sweep and not distributed.has_parent():  # which is a sweep's job
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


def prepare(hydra: DictConfig) -> None:
    """Readies this process for a sweep that it is about to launch."""
    launcher = hydra.runtime.choices["hydra/launcher"]
    if launcher == "joblib":
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, _pass_on)
    elif launcher != "basic":  # whose processes start with nothing but their environment
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if launcher == "submitit_slurm":
        os.environ.setdefault("OMP_NUM_THREADS", str(hydra.launcher.cpus_per_task or 1))
    elif launcher == "submitit_local":
        threads = cores() // _jobs_at_once(hydra.overrides.task, hydra.sweeper.params)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def _pass_on(signum: int, frame: FrameType | None) -> None:
    """Has the workers end their jobs, which the sweep waits for; a second time it does not."""
    global asked
    if asked:
        raise KeyboardInterrupt
    asked = signum
    for worker in multiprocessing.active_children():
        with contextlib.suppress(ProcessLookupError, TypeError):  # it has just ended
            os.kill(worker.pid, signal.SIGTERM)  # type: ignore[arg-type]


def _gpu(number: int) -> str:
    """The one GPU that a job is to see, of those that this process does, in turn; a worker keeps that of its first."""
    import torch

    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    count = torch.cuda.device_count()
    names = [name.strip() for name in seen.split(",")] if seen else [str(index) for index in range(count)]
    return names[number % count] if count else seen


@contextlib.contextmanager
def job() -> Iterator[None]:
    """Runs a job of a sweep as its launcher needs it to be run.

    A signal ends a worker's job, not the worker: the launcher would kill all others if it were one short, while they
    write their checkpoints. Jobs that it is given afterwards are not begun.

    Raises:
        Interrupted: a signal has ended the job or an earlier one.
    """
    global asked, _running
    config = HydraConfig.get() if HydraConfig.initialized() else None
    if config is None or config.mode != RunMode.MULTIRUN or config.runtime.choices["hydra/launcher"] != "joblib":
        yield
        return
    if asked:
        raise Interrupted
    from rich import reconfigure

    from vaelab.runtime import console

    reconfigure(force_terminal=False)  # progress bars of several processes would write over each other
    console.prefix = f"job {config.job.num}: "
    os.environ["CUDA_VISIBLE_DEVICES"] = _gpu(config.job.num)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _end_job)
    _running = True
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # a training turns a signal into one of them
        asked = asked or signal.SIGINT
        raise Interrupted from None
    finally:
        _running = False
        console.prefix = ""  # in a worker of one, the sweep's own lines are said here


def _end_job(signum: int, frame: FrameType | None) -> None:
    """Before and after the training proper, which has handlers of its own, a job just ends."""
    global asked
    first, asked = not asked, signum
    if first and _running:
        raise KeyboardInterrupt


def explain(error: BaseException) -> str | None:
    """The line about a launcher's own error, by its name since its package may be missing; or None."""
    match type(error).__name__:
        case "TerminatedWorkerError":
            return (
                "a worker process was ended from outside, often for want of memory: type hydra.launcher.n_jobs=<fewer> "
                "and hydra.sweep.dir=<this sweep's folder>, which does only what is missing"
            )
        case "UncompletedJobError" | "FailedJobError":
            return (
                "a job ended without a result; its output is in .submitit in the sweep's folder, and the same command "
                "with hydra.sweep.dir=<that folder> does what is missing"
            )
    return None
