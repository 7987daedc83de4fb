"""Turns errors of Hydra, OmegaConf and Lightning into one line with a suggestion."""

import difflib
import errno
import re
from collections.abc import Sequence

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf.errors import GrammarParseError, InterpolationResolutionError, MissingMandatoryValue

from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.paths import options_of
from vaelab.runtime.validation import SettingError
from vaelab.runtime.workarounds.memory import is_out_of_memory

# Errors of a disk, which are no bugs.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG)


def explain(error: BaseException) -> str | None:
    """The line about an error of the user; ``None`` for a bug."""
    match error:
        case UserError():
            return " ".join(str(error).split())
        case InstantiationException():
            return _explain_instantiation(error)
        case OSError() if error.errno in _DISK:
            where = f" ({error.filename})" if error.filename else ""
            return (
                f"{error.strerror}{where}: make room or choose another folder; ckpt_path=<run folder> resumes "
                "a training from its last checkpoint"
            )
        case OverrideParseException():
            return explain_override(error.override)
        case MissingConfigException() if "/" in str(error.missing_cfg_file):
            return _explain_option(error)
        case HydraException():
            return _explain_composition(error)
        case InterpolationResolutionError() | MissingMandatoryValue() | GrammarParseError():
            key = re.search(r"full_key: (\S+)", str(error))
            return f"{key[1]}: {first_line(error)}" if key else first_line(error)
    if is_out_of_memory(error):
        return (
            f"out of memory ({first_line(error)}): type smaller sizes, e.g. of data.batch_size, "
            "data.eval_batch_size, latent_dim, or of layers and numbers of samples"
        )
    if error.__cause__ is not None and isinstance(_origin(error), OSError):
        return explain(_origin(error))  # TensorBoard's logger takes a full disk for a wrong value
    if any(cls.__name__ == "MisconfigurationException" for cls in type(error).__mro__):  # Lightning's, not imported
        hardware = re.search(r"gpu|cuda|device|accelerator", str(error), re.IGNORECASE)
        hint = "; type accelerator=auto for what this machine has" if hardware else ""
        return first_line(error).rstrip(".") + hint
    return None


def _origin(error: BaseException) -> BaseException:
    """The error from which an error was raised, and all errors between."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _explain_instantiation(error: InstantiationException) -> str | None:
    cause = cause_of(error)
    key = re.search(r"full_key: (\S+)", str(error))
    if isinstance(cause, SettingError) and key:
        return explain(cause.within(key[1]))
    line = first_line(cause) if isinstance(cause, InstantiationException) else explain(cause)
    if line is None and isinstance(cause, ValueError | TypeError | ImportError | ArithmeticError):
        line = first_line(cause)
    return f"{key[1]}: {line}" if line and key else line


def explain_override(text: str) -> str:
    """The reason why a text is not ``key=value``."""
    key, equals, value = text.partition("=")
    if not re.fullmatch(r"[\w.+~/@:-]+", key) or not equals or value.startswith("="):
        return f"cannot read {text}; type key=value without blanks around =, as in latent_dim=20"
    if any(value.count(opened) != value.count(closed) for opened, closed in ("[]", "{}", "()")):
        return f"cannot read {text}; a bracket is not closed"
    return f"cannot read {text}; quote the value: '{key}=\"{value}\"'"


def _explain_option(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    line = no_such_option(group, name, list(error.options or options_of(group)))
    source = re.match(r"In '([^']+/[^']+)'", str(error))  # a YAML file of a group names the missing option
    return f"{source[1]}.yaml: {line}" if source and not group.startswith("hydra/") else line


def no_such_option(group: str, name: str, options: list[str]) -> str:
    """The line about a missing option of a group, with the options that it has."""
    near = difflib.get_close_matches(name, options, n=1)
    hint = f"did you mean {group}={near[0]}? " if near else ""
    return f"there is no {group}={name}; {hint}{group} is one of {', '.join(options)}"


def _explain_composition(error: HydraException) -> str:
    text = str(error)
    if typed := re.match(r"Ambiguous value for argument '((.+?)=(.+))'", text):
        return f"{typed[1]} is several values; type -m to run each of them, or {typed[2]}=[{typed[3]}] for a list"
    if typed := re.match(r"Sweep parameters '(.+)' requires", text):
        return f"{typed[1]} is several values; type -m to run each of them"
    if typed := re.match(r"Could not append to config. An item is already at '(.+)'", text):
        return f"there is a setting {typed[1]} already; leave out the +"
    if "does not support sweep type" in text:
        return "a sweep takes values, as in latent_dim=2,8,20: for ranges type hydra/sweeper=search"
    line = first_line(error).rstrip(".")
    cause = error.__cause__
    return f"{line}: {first_line(cause)}" if cause is not None and str(cause) else line


def cause_of(error: BaseException) -> BaseException:
    """The error in a constructor that ``instantiate`` has called; any other error itself."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def last_part(key: str) -> str:
    """The name of a setting without its groups."""
    return key.rpartition(".")[2]


def nearest(key: str, known: Sequence[str]) -> list[str]:
    """The known keys that a mistyped key may mean: with the same name in another group, or a similar name."""
    name = last_part(key)
    initials = "".join(word[:1] for word in name.split("_"))  # learning_rate is lr
    for wanted in (name, initials):
        same = [other for other in known if last_part(other) == wanted]
        if same:
            return difflib.get_close_matches(key, same, n=2, cutoff=0)
    alike = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    alike_names = difflib.get_close_matches(name, map(last_part, known), n=1, cutoff=0.75)
    return alike or [other for other in known if last_part(other) in alike_names][:2]
