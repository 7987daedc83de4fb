"""The command line of the scripts in ``src/``: Hydra, with one readable line for every error of a user.

An error of a user prints one line on stderr (what is wrong, where, what to type instead), with exit code 1. A bug keeps
its traceback. Ctrl-C prints one line, with exit code 130. ``HYDRA_FULL_ERROR=1`` shows tracebacks of all errors. In a
sweep (``-m``) a failed job prints its line and the other jobs still run; the last line counts the failures.

This module does not import torch, so that ``--help`` and errors in options do not wait for it.
"""

import codecs
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
    import yaml
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ValueType
    from hydra.errors import HydraException
    from hydra.experimental.callback import Callback
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf

    from vaelab.runtime import environment
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"error: {missing.name} is not installed here; type . .venv/bin/activate after make train, or pip install -e ."
    ) from None

from vaelab.commands import launchers
from vaelab.commands.error_messages import (
    explain,
    explain_override,
    nearest,
    no_such_option,
)
from vaelab.runs import job_records
from vaelab.runs.job_records import JobRecord
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime import distributed, signals
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.files import write_text
from vaelab.runtime.overrides import plain
from vaelab.runtime.overrides import typed as typed_setting
from vaelab.runtime.paths import CONFIGS, ROOT, options_of
from vaelab.runtime.signals import Stopped
from vaelab.runtime.validation import SettingError
from vaelab.runtime.workarounds.hydra import arguments_parser, raise_job_errors_quietly

WIDTH = 99  # of --help

# What to type for a setting that the configs leave open (`???`).
MANDATORY = {"run": "run=latest or run=<a run folder or checkpoint>"}

_MISSING = object()
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


def _env(name: str, default: Any = None) -> str | None:
    """An environment variable, as ``oc.env``; but an empty one counts as one that is not set."""
    return environment.variable(name) or (None if default is None else str(default))


OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)
OmegaConf.register_new_resolver("given", lambda condition, value: value if condition else None, replace=True)
OmegaConf.register_new_resolver("options", _options, replace=True)
OmegaConf.register_new_resolver("env", _env, replace=True)
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
            _Command(config_name, task).run()

        return main

    return decorate


class SweepWatcher(Callback):
    """Remembers the folder of a sweep, and collects the failures of its jobs, with any launcher."""

    path: Path | None = None
    before: ClassVar[set[JobRecord]] = set()  # those of earlier attempts at this sweep

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        SweepWatcher.path = Path(config.hydra.sweep.dir).absolute()
        SweepWatcher.before = set(job_records.read(SweepWatcher.path))
        launchers.prepare(config.hydra)

    @classmethod
    def failures(cls) -> str | None:
        """The number of failed jobs, their settings and reasons, from their records; ``None`` if no job failed."""
        if cls.path is None:
            return None
        jobs = [record for record in job_records.read(cls.path) if record not in cls.before]
        failed = sorted((record for record in jobs if record.failure), key=lambda record: record.number)
        reasons = [f"{record.number} ({' '.join(record.overrides)}): {record.failure}" for record in failed]
        return f"{len(failed)} of {len(jobs)} jobs failed: {'; '.join(reasons)}" if failed else None


def _sweep_of(config: Any) -> Path:
    """The folder of a sweep, in any of its jobs, which may have another working directory."""
    return Path(config.runtime.cwd, config.sweep.dir)


class _Jobs:
    """The function that Hydra calls: once, or once for each job of a sweep. It reports failed jobs.

    It is a class of this module because launchers send it to other processes, which import it.
    """

    def __init__(self, task: Task) -> None:
        functools.update_wrapper(self, task)  # Hydra finds the script by the attributes of the task
        self.task = task
        self.started = False
        self.record: JobRecord | None = None  # of the current job of a sweep

    def __call__(self, cfg: DictConfig) -> Any:
        self.started, self.record = True, None
        logging.captureWarnings(True)  # in the log file too
        logging.raiseExceptions = False  # else each line that does not fit on the disk prints a traceback
        try:
            with launchers.job():
                self.record = self._begin()
                if not str(cfg.get("run_dir", "unused") or "").strip():  # it would mean the working directory
                    raise UserError("run_dir is empty: type run_dir=<a folder>, or leave it out")
                return self.task(cfg)
        except launchers.Interrupted:
            raise
        except Exception as error:
            self._report(error)
            raise

    def _begin(self) -> JobRecord | None:
        """Records that a job of a sweep starts."""
        config = HydraConfig.get() if HydraConfig.initialized() else None
        if config is None or config.mode != RunMode.MULTIRUN or not distributed.is_first():
            return None
        folder = Path(config.runtime.output_dir)
        record = job_records.begin(_sweep_of(config), folder, config.job.num, plain(config.overrides.task))
        RunFolder(folder).failure_file.unlink(missing_ok=True)
        return record

    def _report(self, error: Exception) -> None:
        line = explain(error)
        _log_to_file(line or "".join(traceback.format_exception(error)))
        config = HydraConfig.get()
        if config.mode != RunMode.MULTIRUN:
            return  # _Command prints the error
        if line is None or _full_error():
            traceback.print_exception(error)
        job = f"{config.job.num} ({' '.join(plain(config.overrides.task))})"
        line = line or f"{type(error).__name__}: {first_line(error)}"
        if distributed.is_first():
            with contextlib.suppress(OSError):  # perhaps the disk has failed
                if record := self.record or self._begin():
                    job_records.fail(_sweep_of(config), record, line)
                write_text(f"{line}\n", RunFolder(Path(config.runtime.output_dir)).failure_file)
            print(f"job {job} failed: {line}", file=sys.stderr, flush=True)


class _Command:
    """One call of an entry point: checks the command line, calls Hydra, and reports errors."""

    def __init__(self, config_name: str, task: Task) -> None:
        self.config_name = config_name
        self.jobs = _Jobs(task)
        self.overrides: list[str] = []
        self.folders = [CONFIGS]  # of YAML files

    def run(self) -> None:
        _print_any_text()
        try:
            with signals.raised(after=signals.leave):
                try:
                    environment.load(ROOT / ".env")
                except UserError as error:
                    _exit(f"error: {error}")
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
            line = _explain_file(error, self.folders) or self._explain(error) or launchers.explain(error)
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
        self.folders += [Path(path) for path in (args.config_dir, args.config_path) if path]
        if args.help:  # without Hydra, because its list of all groups takes most of the time
            print(self._compose(self.overrides).hydra.help.template)
            return
        _check_marks(self.folders)
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
        primary = CONFIGS / f"{self.config_name}.yaml"
        declared = _plain(OmegaConf.load(primary)) if primary.is_file() else {}
        self._check_deletions(declared)
        sweep = args.multirun or "hydra.mode=MULTIRUN" in self.overrides
        cfg = self._compose(list(_first_job(self.overrides)) if sweep else self.overrides)
        launchers.check(cfg.hydra, sweep)
        values = _plain(cfg)
        self._check_copies(args.overrides)
        for key, value in values.items():
            if key not in declared and key not in cfg.hydra.runtime.choices:
                typed = next((text for text in self.overrides if _key(text).split(".")[0] == key), key)
                raise UserError(f"nothing reads {_key(typed)}; {self._hint(typed)}")
            if isinstance(declared.get(key), dict) and not isinstance(value, dict):
                raise UserError(f"{key}={value}: {key} is a group of settings; --cfg job -p {key} prints them")
        for text in self.overrides:
            key, _, value = text.lstrip("+").partition("=")
            if value.replace(" ", "") == "{}" and isinstance(_at(values, key), dict) and _at(values, key):
                raise UserError(f"{text}: this changes nothing in {key}; --cfg job -p {key} prints its settings")
        for key, value in _settings(values):
            if value == "???":
                raise UserError(f"{key} is missing; type {MANDATORY.get(key, f'{key}=...')}")

    def _check_deletions(self, declared: dict[str, Any]) -> None:
        """Refuses to delete what the command reads: its own settings and its groups."""
        for typed in self.overrides:
            key = _key(typed).partition("@")[0]
            if not typed.startswith("~"):
                continue
            if (CONFIGS / key).is_dir():
                raise UserError(f"{typed}: a choice cannot be deleted; {key} is one of {', '.join(options_of(key))}")
            if _at(declared, key) is not _MISSING:
                raise UserError(f"{typed}: {self.config_name}.py reads this setting; leave {typed} out")

    def _check_copies(self, overrides: Sequence[str]) -> None:
        """Refuses to set what follows another setting, in the parts of a model or a data set: both must agree."""
        typed = {_key(text): text for text in overrides if re.match(r"\+*(?:module|data\.source)\.", text)}
        if not typed:
            return
        cfg = self._compose([text for text in overrides if text not in typed.values() and not _is_sweep(text)])
        for key, text in typed.items():
            raw = _at(_plain(cfg), key)
            originals = [name for name in re.findall(r"\$\{([\w.]+)\}", str(raw)) if name.partition(".")[0] in cfg]
            if isinstance(raw, str) and originals:
                value = text.partition("=")[2]
                instead = f"type {originals[0]}={value}" if len(originals) == 1 else "set these instead"
                raise UserError(f"{text}: {key} follows {' and '.join(originals)}; {instead}")

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
            name = typed.partition("=")[2]
            if (CONFIGS / unknown[1]).is_dir() and name not in options_of(unknown[1]):  # a value that is no name
                return no_such_option(unknown[1], name, options_of(unknown[1]))
            return f"there is no setting {unknown[1]}; {self._hint(typed)}"
        if isinstance(error, SettingError):
            self._propose_default(error)
        line = explain(error)
        if line is not None or self.jobs.started:
            return line
        for typed in self.overrides:  # model=3, model=null and model=[[1]]: Hydra names only the type, or fails
            group, _, name = typed.partition("=")
            if (CONFIGS / group).is_dir() and name not in options_of(group) and not _is_sweep(typed):
                return no_such_option(group, name, options_of(group))
        return first_line(error) if isinstance(error, ValueError | OSError) else None

    def _propose_default(self, error: SettingError) -> None:
        """Has an error about a typed value propose the value that the setting has without it, if it is not null."""
        others = [text for text in self.overrides if _key(text) != error.setting]
        if len(others) < len(self.overrides):
            with contextlib.suppress(Exception):  # this is only about a better example
                default = OmegaConf.select(self._compose(others), error.setting)
                error.example = error.example if default is None or OmegaConf.is_dict(default) else default

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
        if key in near and typed.startswith("~"):  # Hydra deletes no setting that is null
            return f"it is null; leave {typed} out"
        if near:
            return f"did you mean {' or '.join(setting + equals + value for setting in near)}?"
        parent = key.rpartition(".")[0]
        siblings = [setting for setting in settings if parent and setting.startswith(f"{parent}.")]
        return f"--cfg job{f' -p {parent}' if siblings else ''} prints all there are"


def _is_sweep(override: str) -> bool:
    return OverridesParser.create().parse_override(override).is_sweep_override()


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _plain(cfg: Any) -> dict[str, Any]:
    """A config as a dict, without the settings of Hydra; interpolations are not resolved."""
    values: Any = OmegaConf.to_container(cfg)
    values.pop("hydra", None)
    return values


def _at(node: Any, key: str) -> Any:
    """The value of a setting in a nested dict; ``_MISSING`` if there is none."""
    for name in key.split("."):
        node = node.get(name, _MISSING) if isinstance(node, dict) else _MISSING
    return node


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


def _check_marks(folders: Sequence[Path]) -> None:
    """Refuses YAML files with a byte order mark, because Hydra then overlooks the first line, ``# @package ...``."""
    for path in (path for folder in folders for path in folder.rglob("*.yaml")):
        with contextlib.suppress(OSError), path.open("rb") as file:  # Hydra reports those that it needs
            if file.read(3) == codecs.BOM_UTF8:
                raise UserError(f"{path} begins with a byte order mark: save it as UTF-8 without one (BOM)")


def _explain_file(error: Exception, folders: Sequence[Path]) -> str | None:
    """The line about a YAML file that is no text or no YAML; ``None`` for any other error."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        hint = "indent with blanks, not with tabs" if "'\\t'" in str(error.problem) else "correct the YAML there"
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}: {hint}"
    if isinstance(error, UnicodeDecodeError):
        for path in (path for folder in folders for path in folder.rglob("*.yaml")):
            try:
                path.read_bytes().decode()
            except UnicodeDecodeError as found:
                line = found.object[: found.start].count(b"\n") + 1
                return f"{path}, line {line} is no UTF-8 text: save the file as UTF-8 in an editor"
    return None


def _log_to_file(message: str) -> None:
    """Writes an error into the log file only, because stderr shows it on the terminal."""
    record = logging.LogRecord(__name__, logging.ERROR, __file__, 0, message, None, None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _print_any_text() -> None:
    """Lets the standard streams print what their encoding lacks, such as parts of file names, as escape sequences."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
