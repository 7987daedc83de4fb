"""Settings as they are typed on a command line."""

import re
import shlex
from pathlib import Path
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/.][\w/.:+%@-]*", re.ASCII)  # what Hydra's grammar reads as text without quotes


def typed(key: str, value: Any) -> str:
    """A setting as it is typed into a shell, whatever is in its value."""
    return shlex.quote(f"{key}={literal(value)}")


def literal(value: Any) -> str:
    """A value as Hydra reads it on the command line."""
    if isinstance(value, str | Path):
        text = str(value)
        is_plain = _PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "inf", "nan")
        return text if is_plain else quoted(text)
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    return "null" if value is None else str(value).lower() if type(value) is bool else str(value)


def quoted(text: str) -> str:
    """Text that Hydra takes as it is."""
    # Of backslashes it takes those in pairs that stand before a quote, and others as they are.
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
