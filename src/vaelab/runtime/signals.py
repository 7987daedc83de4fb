"""Signals that ask a process to end. In every phase of a command they end it soon, with the exit code 128 + n.

A signal raises :class:`Stopped` where it arrives. That is no ``Exception``, so nothing takes it for a failed plot or a
failed job. A training waits for the end of its step, see :class:`vaelab.training.callbacks.graceful_stop.GracefulStop`.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU")  # Windows has the first two
ENDING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
_PATIENCE = 20  # seconds in which a handler must have reacted
_OF_KEYBOARD = tuple(getattr(signal, name) for name in ("SIGINT", "SIGQUIT") if hasattr(signal, name))

asked = 0  # the first signal that has asked this process to end; 0 for none
_handled: set[int] = set()  # signals to which a handler has reacted
_raises = False  # whether a signal raises Stopped where it arrives


class Stopped(BaseException):
    """A signal has asked for the end.

    Attributes:
        signum: the signal.
        when: it ended a training, as " after step 40"; else empty.
        is_told: whether a line about it was printed.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.when = ""
        self.is_told = False


def ask(signum: int) -> bool:
    """Remembers that a signal has asked for the end; returns whether it was the first one.

    A second Ctrl-C or Ctrl-backslash ends the process at once. A second SIGTERM does not: many programs send it twice.
    """
    global asked
    _handled.add(signum)
    if asked == signum in _OF_KEYBOARD:
        os._exit(128 + signum)
    if signum == getattr(signal, "SIGHUP", None):
        _leave_terminal()
    is_first, asked = not asked, asked or signum
    return is_first


def _leave_terminal() -> None:
    """Sends output nowhere if the terminal is gone, because an error of a print would take the place of the end."""
    import termios  # where there is SIGHUP

    for file in (1, 2):
        try:
            termios.tcgetattr(file)
        except termios.error as error:
            if error.args[0] == 5:  # EIO: it was a terminal
                os.dup2(os.open(os.devnull, os.O_WRONLY), file)


def handle(handler: Any, signums: Iterable[int] = ENDING) -> dict[int, Any]:
    """Sets a handler for signals, except for those that this process was told to ignore, as ``nohup`` does.

    Returns:
        The handlers before, by signal; none outside the main thread, which cannot set handlers.
    """
    before: dict[int, Any] = {}
    with suppress(ValueError):
        for signum in signums:
            if signal.getsignal(signum) != signal.SIG_IGN:
                before[signum] = signal.signal(signum, handler)
    return before


def restore(before: dict[int, Any]) -> None:
    """Sets the handlers that :func:`handle` has returned."""
    for signum, handler in before.items():
        signal.signal(signum, handler)


def record(signum: int, frame: FrameType | None) -> None:
    """A handler: remembers the signal, and raises :class:`Stopped` inside :func:`raised`."""
    if ask(signum) and _raises:
        raise Stopped(signum)


def leave(signum: int, frame: FrameType | None) -> None:
    """A handler: ends the process at once."""
    os._exit(128 + signum)


@cache
def _end_if_stuck() -> None:
    """Ends this process after a signal to which no handler reacts, in a thread.

    Python runs handlers between two of its own instructions. A library may wait for another machine in a single one.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while number := os.read(reader, 1):
            signum = number[0]
            deadline = time.monotonic() + _PATIENCE
            while signum in ENDING and signum not in _handled:
                if time.monotonic() > deadline:
                    os.write(2, f"stopped by {signal.Signals(signum).name}\n".encode())
                    os._exit(128 + signum)
                time.sleep(0.1)

    threading.Thread(target=watch, daemon=True, name="end-if-stuck").start()


def is_raised() -> bool:
    """Whether a signal raises :class:`Stopped` now, because a command or a training runs."""
    return _raises


def check() -> None:
    """Raises again what a library has swallowed.

    Raises:
        Stopped: a signal has asked for the end.
    """
    if asked and _raises:
        raise Stopped(asked)


@contextmanager
def raised(after: Any = None) -> Iterator[None]:
    """Inside, a signal that asks for the end raises :class:`Stopped`. An inner context changes nothing.

    Args:
        after: the handler from then on; ``None`` for the handlers before, which forgets the signal.

    Raises:
        Stopped: a signal has asked for the end, now or before.
    """
    global asked, _raises
    if _raises or is_submitit():  # submitit has its own handlers, which queue the job again
        yield
        return
    before = handle(record, [*ENDING, *requeue_signals()])
    if before and after is not None and os.name == "posix":
        _end_if_stuck()
    _raises = True
    try:
        check()
        yield
        check()
    finally:
        _raises = False
        if after is None:
            restore(before)
            asked = 0
        else:
            handle(after, before)


def is_submitit() -> bool:
    """Whether this is a job of submitit."""
    return "SUBMITIT_EXECUTOR" in os.environ


def requeue_signals() -> list[signal.Signals]:
    """The signal at which this job ends and is queued again; empty outside a cluster.

    In a job of submitit only its own signal counts, because its handler queues the job.
    """
    if is_submitit():
        return [signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]]
    return [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []


def requeue(signum: int) -> str | None:
    """Queues this job again.

    Args:
        signum: the signal that asked for it.

    Returns:
        The reason for a failure; ``None`` if it worked.

    Raises:
        SystemExit: in a job of submitit, whose handler ends the process.
    """
    if is_submitit():
        handler: Any = signal.getsignal(signum)
        try:
            handler(signum, None)
        except Exception as error:  # submitit refuses, e.g. because the job was queued too often
            return str(error).strip(".")
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    except OSError as error:
        return f"scontrol: {error.strerror}"
    return None if done.returncode == 0 else f"scontrol requeue {job}: {done.stderr.strip() or done.returncode}"


def was_requeued() -> bool:
    """Whether Slurm or torchrun has started this job before."""
    return any(int(os.environ.get(f"{name}_RESTART_COUNT") or 0) > 0 for name in ("SLURM", "TORCHELASTIC"))
