"""The command line of the scripts in ``src/``: Hydra, with one readable line for every error of a user.

An error of a user prints one line on stderr (what is wrong, where, what to type instead), with exit code 1. A bug keeps
its traceback. Ctrl-C prints one line, with exit code 130. ``HYDRA_FULL_ERROR=1`` shows tracebacks of all errors. In a
sweep (``-m``) a failed job prints its line and the other jobs still run; the last line counts the failures.

This module does not import torch, so that ``--help`` and errors in options do not wait for it.
"""

import contextlib
import functools
import io
import logging
import os
import re
import sys
import textwrap
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

try:
    import hydra
    from dotenv import load_dotenv
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ValueType
    from hydra.errors import HydraException
    from hydra.experimental.callback import Callback
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"error: {missing.name} is not installed here; type . .venv/bin/activate after make train, or pip install -e ."
    ) from None

from vaelab.commands import launchers
from vaelab.commands.error_messages import (
    cause_of,
    explain,
    explain_override,
    last_part,
    nearest,
    no_such_option,
)
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime import distributed, signals
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.overrides import typed as typed_setting
from vaelab.runtime.paths import CONFIGS, ROOT, options_of
from vaelab.runtime.signals import Stopped
from vaelab.runtime.workarounds.hydra import arguments_parser, raise_job_errors_quietly

WIDTH = 99  # of --help

# What to type for a setting that the configs leave open (`???`).
MANDATORY = {"run": "run=latest or run=<a run folder or checkpoint>"}

Task = Callable[[DictConfig], Any]


def _options(*groups: str) -> str:
    """The table of config groups in the help: a line for each group, with its options."""
    indent = max(map(len, groups)) + 4
    lines = []
    for group in groups:
        first = f"  {group}".ljust(indent)
        options = ", ".join(options_of(group))
        lines.append(textwrap.fill(options, WIDTH, initial_indent=first, subsequent_indent=" " * indent))
    return "\n".join(lines)


OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)
OmegaConf.register_new_resolver("given", lambda condition, value: value if condition else None, replace=True)
OmegaConf.register_new_resolver("options", _options, replace=True)
# The cache is part of the config, so the workers of a launcher use the folder of the sweep.
OmegaConf.register_new_resolver(
    "started", lambda pattern: distributed.start_time().strftime(pattern), use_cache=True, replace=True
)


def entry_point(config_name: str) -> Callable[[Task], Callable[[], None]]:
    """A decorator that turns ``main(cfg)`` into a command.

    The command composes ``configs/<config_name>.yaml`` with the typed overrides. Before, it sets the variables of
    ``.env`` in the project root, except those that are set already.
    """

    def decorate(task: Task) -> Callable[[], None]:
        @functools.wraps(task)
        def main() -> None:
            load_dotenv(ROOT / ".env")
            _Command(config_name, task).run()

        return main

    return decorate


class SweepWatcher(Callback):
    """Remembers the folder of a sweep, and collects the failures of its jobs, with any launcher."""

    path: Path | None = None
    earlier: ClassVar[dict[Path, int]] = {}  # files of failures in an earlier attempt at this sweep, and their times

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        SweepWatcher.path = Path(config.hydra.sweep.dir).absolute()
        SweepWatcher.earlier = {path: path.stat().st_mtime_ns for path in _failure_files(SweepWatcher.path)}
        launchers.prepare(config.hydra)

    @classmethod
    def failures(cls) -> str | None:
        """The number of failed jobs, their settings and reasons, from their files; ``None`` if no job failed."""
        if cls.path is None:
            return None
        failed = [path for path in _failure_files(cls.path) if path.stat().st_mtime_ns != cls.earlier.get(path)]
        failed.sort(key=lambda path: (len(path.parent.name), path.parent.name))
        jobs = len(list(cls.path.glob("*/.hydra")))
        return f"{len(failed)} of {jobs} jobs failed: {'; '.join(map(_failure, failed))}" if failed else None


def _failure_files(sweep: Path) -> list[Path]:
    """The files in which failed jobs of a sweep have left their reasons."""
    return [file for job in sweep.glob("*/") if (file := RunFolder(job).failure_file).is_file()]


def _failure(path: Path) -> str:
    """The job of this file, its settings and the reason of its failure."""
    overrides = path.parent / ".hydra" / "overrides.yaml"
    typed = " ".join(OmegaConf.load(overrides)) if overrides.is_file() else ""
    return f"{path.parent.name} ({typed}): {path.read_text().strip()}"


class _Jobs:
    """The function that Hydra calls: once, or once for each job of a sweep. It reports failed jobs.

    It is a class of this module because launchers send it to other processes, which import it.
    """

    def __init__(self, task: Task) -> None:
        functools.update_wrapper(self, task)  # Hydra finds the script by the attributes of the task
        self.task = task
        self.started = False

    def __call__(self, cfg: DictConfig) -> Any:
        self.started = True
        logging.captureWarnings(True)  # in the log file too
        logging.raiseExceptions = False  # else each line that does not fit on the disk prints a traceback
        try:
            with launchers.job():
                return self.task(cfg)
        except launchers.Interrupted:
            raise
        except Exception as error:
            self._report(error)
            raise

    def _report(self, error: Exception) -> None:
        line = explain(error)
        _log_to_file(line or "".join(traceback.format_exception(error)))
        config = HydraConfig.get()
        if config.mode != RunMode.MULTIRUN:
            return  # _Command prints the error
        if line is None or _full_error():
            traceback.print_exception(error)
        job = f"{config.job.num} ({' '.join(config.overrides.task)})"
        line = line or f"{type(error).__name__}: {first_line(error)}"
        if distributed.is_first():
            with contextlib.suppress(OSError):  # perhaps the disk has failed
                RunFolder(Path(config.runtime.output_dir)).failure_file.write_text(f"{line}\n")
            print(f"job {job} failed: {line}", file=sys.stderr, flush=True)


class _Command:
    """One call of an entry point: checks the command line, calls Hydra, and reports errors."""

    def __init__(self, config_name: str, task: Task) -> None:
        self.config_name = config_name
        self.jobs = _Jobs(task)
        self.overrides: list[str] = []

    def run(self) -> None:
        try:
            with signals.raised(after=signals.leave):
                self._run() if _full_error() else self._run_quietly()
        except Stopped as stopped:
            if stopped.signum in signals.requeue_signals() and self.config_name == "train" and distributed.is_first():
                failure = signals.requeue(stopped.signum)  # the signal came before or after the training of a job
                print(f"error: the job could not be queued again ({failure})" if failure else "queued again")
                raise SystemExit(int(failure is not None)) from None
            if distributed.is_first() and not stopped.is_told:
                print(_stop_line(stopped), file=sys.stderr)
            raise SystemExit(128 + stopped.signum) from None

    def _run_quietly(self) -> None:
        """Runs the command; an error of the user becomes one line."""
        # With the first variable, Hydra raises errors. Otherwise it prints them and exits. Child processes inherit both
        # variables. The second one tells them that the user has not set the first.
        os.environ.update(HYDRA_FULL_ERROR="1", VAELAB_ONE_LINE_ERRORS="1")
        try:
            try:
                self._run()
            finally:
                sys.stdout.flush()  # so that a closed pipe raises here, and not while Python shuts down
        except BrokenPipeError:
            try:
                print(flush=True)
            except BrokenPipeError:  # `| head` has closed it; the flush at the exit of Python must not fail again
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            raise  # another pipe is broken: a bug
        except KeyboardInterrupt:
            _exit("interrupted", code=130)
        except Exception as error:
            if isinstance(error, launchers.Interrupted):
                raise Stopped(signals.asked or error.signum) from None  # workers get SIGTERM, whatever came here
            signals.check()  # a worker of a launcher may have ended before it could say so
            failures = SweepWatcher.failures()
            if failures and not distributed.is_first():
                raise SystemExit(0) from None  # the first process reports failed jobs
            if failures:
                _exit(failures)
            line = self._explain(error) or launchers.explain(error)
            if line is None:
                raise
            if distributed.has_parent():  # the parent reports the error
                raise SystemExit(1) from None
            _exit(f"error: {line}" if distributed.is_first() else f"error: process {distributed.rank()}: {line}")

    def _run(self) -> None:
        launchers.hide_schema_warning()
        distributed.check_environment()
        distributed.stay_with_parent()
        sys.argv += distributed.rank_overrides()
        args = _parse_args()
        self.overrides = args.overrides
        self.config_name = args.config_name or self.config_name
        if args.help:  # without Hydra, because its list of all groups takes most of the time
            print(self._compose(self.overrides).hydra.help.template)
            return
        if not (args.hydra_help or args.cfg or args.info or args.shell_completion):
            self._check(args)
        try:
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=self.config_name)(self.jobs)()
        finally:
            sweep = SweepWatcher.path
            if sweep is not None and sweep.is_dir() and self.config_name == "train" and distributed.is_first():
                from vaelab.commands.sweep import write_results

                write_results(sweep)

    def _check(self, args: Namespace) -> None:
        """Raises errors that Hydra does not: missing settings, and settings that nothing reads. It makes no folder."""
        if args.config_dir or args.config_path or args.experimental_rerun:
            return  # configurations of the user are not checked
        sweep = args.multirun or "hydra.mode=MULTIRUN" in self.overrides
        cfg = self._compose(list(_first_job(self.overrides)) if sweep else self.overrides)
        launchers.check(cfg.hydra, sweep)
        values = _plain(cfg)
        declared = _plain(OmegaConf.load(CONFIGS / f"{self.config_name}.yaml"))
        for key, value in values.items():
            if key not in declared and key not in cfg.hydra.runtime.choices:
                typed = next((text for text in self.overrides if _key(text).split(".")[0] == key), key)
                raise UserError(f"nothing reads {_key(typed)}; {self._hint(typed)}")
            if isinstance(declared.get(key), dict) and not isinstance(value, dict):
                raise UserError(f"{key}={value}: {key} is a group of settings; --cfg job -p {key} prints them")
        for key, value in _settings(values):
            if value == "???":
                raise UserError(f"{key} is missing; type {MANDATORY.get(key, f'{key}=...')}")

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3", job_name=self.config_name):
            return hydra.compose(self.config_name, list(overrides), return_hydra_config=True)

    def _explain(self, error: Exception) -> str | None:
        text = str(error)
        unknown = re.match(
            r"Could not (?:override|delete from config\.) '(.+?)'(?:\.\n|\. No match| does not exist)", text
        )
        if isinstance(error, HydraException) and unknown:
            typed = next((text for text in self.overrides if _key(text) == unknown[1]), unknown[1])
            return f"there is no setting {unknown[1]}; {self._hint(typed)}"
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(cause_of(error)))
        for typed in self.overrides:  # `+trainer.max_epoch=3`: Hydra adds it, but the trainer has no such argument
            if refused and typed.startswith("+") and last_part(_key(typed)) == refused[1]:
                return f"nothing reads {_key(typed)}; {self._hint(typed)}"
        line = explain(error)
        if line is None and not self.jobs.started and isinstance(error, ValueError | OSError):
            for typed in self.overrides:  # model=3 and model=null: Hydra names only the type
                group, _, name = typed.partition("=")
                if (CONFIGS / group).is_dir() and name not in options_of(group):
                    return no_such_option(group, name, options_of(group))
            return first_line(error)  # no job has started, so the command line is wrong
        return line

    def _hint(self, typed: str) -> str:
        """What to type instead of a setting that does not exist."""
        try:
            cfg = self._compose([text for text in self.overrides if text != typed])
        except Exception:  # another error in the command line, which is reported next
            cfg = self._compose([])
        key, equals, value = _key(typed), *typed.partition("=")[1:]
        groups = [group for group in cfg.hydra.runtime.choices if not group.startswith("hydra")]
        settings = [setting for setting, _ in _settings(_plain(cfg))]
        near = nearest(key, [*groups, *settings])
        if near:
            return f"did you mean {' or '.join(setting + equals + value for setting in near)}?"
        parent = key.rpartition(".")[0]
        siblings = [setting for setting in settings if parent and setting.startswith(f"{parent}.")]
        return f"--cfg job{f' -p {parent}' if siblings else ''} prints all there are"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _plain(cfg: Any) -> dict[str, Any]:
    """A config as a dict, without the settings of Hydra; interpolations are not resolved."""
    values: Any = OmegaConf.to_container(cfg)
    values.pop("hydra", None)
    return values


def _settings(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The full keys of a nested dict and their values, except those of ``instantiate`` (``_target_``)."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{key}.")
        elif not str(key).startswith("_"):
            yield f"{prefix}{key}", value


def _first_job(overrides: list[str]) -> Iterator[str]:
    """The overrides of the first job of a sweep, as far as they are known without the sweeper."""
    for override in OverridesParser.create().parse_overrides(overrides):
        if not override.is_sweep_override():
            yield str(override.input_line)
        elif override.is_discrete_sweep() and override.value_type is not ValueType.GLOB_CHOICE_SWEEP:
            value = next(override.sweep_string_iterator(), None)
            if value is None:
                raise UserError(f"{override.input_line}: there is nothing to choose from")
            yield f"{override.get_key_element()}={value}"


def _parse_args() -> Namespace:
    """The command line, parsed as Hydra does; an error of argparse becomes one line."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            args = arguments_parser().parse_args()
    except SystemExit as end:
        if not end.code:
            raise
        line = printed.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        hint = "type -m before all settings" if re.search(r"unrecognized.*\w=", line) else "--hydra-help lists them"
        raise UserError(f"{line}; {hint}") from None
    for override in args.overrides:
        if override.startswith("="):  # Hydra takes it for an option of a group without a name
            raise UserError(explain_override(override))
    return args


def _log_to_file(message: str) -> None:
    """Writes an error into the log file only, because stderr shows it on the terminal."""
    record = logging.LogRecord(__name__, logging.ERROR, __file__, 0, message, None, None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _full_error() -> bool:
    """Whether the user wants tracebacks of all errors."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and "VAELAB_ONE_LINE_ERRORS" not in os.environ


def _stop_line(stopped: Stopped) -> str:
    """The line about a signal that has ended a command, and about the rest of a sweep."""
    sweep = SweepWatcher.path
    if sweep is None:
        return f"stopped by {stopped}"
    return (
        f"stopped by {stopped}: the same command with {typed_setting('hydra.sweep.dir', sweep)} runs the missing jobs"
    )


def _exit(line: str, code: int = 1) -> NoReturn:
    """Prints a line on stderr and exits."""
    print(line, file=sys.stderr)
    raise SystemExit(code) from None


raise_job_errors_quietly()
