"""Scripts in processes of their own that do not import torch, Lightning and Hydra again.

A server imports these packages once and forks for every script. The fork has the arguments, the environment, the folder
and the output files of its script. It imports the project's code itself, and it ends as any interpreter does.
Tests of what is imported, and when, start an interpreter instead.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_ONE_AT_A_TIME = threading.Lock()  # for scripts that several threads start
PACKAGES = ("torchvision", "lightning.pytorch", "hydra.main", "wandb", "torchmetrics", "matplotlib.pyplot", "jinja2")


class Started:
    """A script that runs: the part of ``subprocess.Popen`` that tests use. Its output goes to files."""

    def __init__(self, words: Sequence[str], cwd: Path | str, env: Mapping[str, str], own_session: bool) -> None:
        self.args = list(words)
        self.returncode: int | None = None
        self._out, self._err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115
        self._status, ends = os.pipe()
        request = json.dumps([self.args, str(cwd), dict(env), own_session]).encode()
        with _ONE_AT_A_TIME:
            server = _server()
            server.sendall(len(request).to_bytes(4, "big"))
            socket.send_fds(server, [b"f"], [self._out.fileno(), self._err.fileno(), ends])
            server.sendall(request)
        os.close(ends)
        self.pid = int(self._line())

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self._status, 1)
            if not byte:
                raise ChildProcessError(f"no answer from the process of {self.args}")
            line += byte
        return line

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._line())
            os.close(self._status)
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What the script has printed, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then.
        """
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            self.send_signal(signal.SIGKILL)
            raise subprocess.TimeoutExpired(self.args, timeout)
        self.poll()
        return self.printed(), _contents(self._err)

    def printed(self) -> str:
        """What the script has printed so far."""
        return _contents(self._out)

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            select.select([self._status], [], [])
            self.poll()
        self._out.close()
        self._err.close()


def _contents(file: IO[bytes]) -> str:
    """All that was written, read without moving the place at which the script goes on to write."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()


def start(
    words: Sequence[object], *, cwd: Path | str = ".", env: Mapping[str, str] = os.environ, own_session: bool = False
) -> Started:
    """Starts ``python <words>``: the path of a script, or ``-m`` and a module, and what is typed after it."""
    return Started([str(word) for word in words], Path(cwd).resolve(), env, own_session)


def run(
    words: Sequence[object], *, cwd: Path | str = ".", env: Mapping[str, str] = os.environ, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs ``python <words>`` to its end."""
    with start(words, cwd=cwd, env=env) as child:
        out, err = child.communicate(timeout)
        assert child.returncode is not None
        return subprocess.CompletedProcess(child.args, child.returncode, out, err)


@functools.cache
def _server() -> socket.socket:
    """The server of this process, started when it is first needed; it ends with the connection."""
    ours, its = socket.socketpair()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, __file__, str(its.fileno())]
    process = subprocess.Popen(command, pass_fds=[its.fileno()], env=env, stdin=subprocess.DEVNULL)
    its.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- the server ------------------------------------------------------------------------------------------------------


def _received(connection: socket.socket, count: int) -> bytes:
    """So many bytes, or none where the tests have ended."""
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            return b""
        received += part
    return received


def _serve(connection: socket.socket) -> Any:
    """Returns in every process that is to run a script, with its words."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for the scripts
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while size := _received(connection, 4):
        files = socket.recv_fds(connection, 1, 3)[1]
        words, cwd, env, own_session = json.loads(_received(connection, int.from_bytes(size, "big")))
        if os.fork() == 0:
            connection.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            child = os.fork()
            if child == 0:
                _become(files, cwd, env, own_session)
                return words
            _wait_for(child, files)
        for file in files:
            os.close(file)
    os._exit(0)


def _wait_for(child: int, files: list[int]) -> None:
    """Reports the child's number, then how it ended."""
    out, err, status = files
    os.close(out)
    os.close(err)
    with contextlib.suppress(BrokenPipeError):  # the test has ended before
        os.write(status, f"{child}\n".encode())
        os.write(status, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())
    os._exit(0)


def _become(files: list[int], cwd: str, env: dict[str, str], own_session: bool) -> None:
    """Gives this process all that a process of its own would have been started with."""
    out, err, status = files
    os.close(status)
    for file, number in ((out, 1), (err, 2)):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if own_session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    random.seed()
    importlib.import_module("numpy").random.seed()


def _execute(words: list[str]) -> None:
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


def _import() -> None:
    """Imports what every script needs, and forgets the project's own code, which repairs torchvision's import.

    It forgets wandb, too, though not what wandb imports: wandb makes a temporary folder where it is imported, and the
    first fork to end would remove it.
    """
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    for package in ("vaelab", *PACKAGES):
        importlib.import_module(package)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("vaelab", "wandb")]:
        del sys.modules[name]
    gc.freeze()  # what a fork does not look through on its way out it does not copy either: 0.3 s of a CPU, not 1.3 s


if __name__ == "__main__":
    _import()
    _execute(_serve(socket.socket(fileno=int(sys.argv[1]))))
