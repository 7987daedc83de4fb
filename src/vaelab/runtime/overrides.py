"""Settings in the syntax of the command line."""

import re
import shlex
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

_PLAIN = re.compile(r"[A-Za-z_/.][\w/.:+%@-]*", re.ASCII)  # what Hydra's grammar reads as text without quotes


def typed(key: str, value: Any) -> str:
    """A setting as it is typed into a shell, quoted if its value needs it."""
    return shlex.quote(f"{key}={literal(value)}")


def plain(node: Any) -> Any:
    """A list or a dict of Hydra in plain containers, whose texts stay as they were typed.

    A loop over such a list would resolve the interpolations in it.
    """
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def literal(value: Any) -> str:
    """A value in the syntax of Hydra's command line."""
    if isinstance(value, str | Path):
        text = str(value)
        is_plain = _PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "inf", "nan")
        return text if is_plain else quoted(text)
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    return "null" if value is None else str(value).lower() if type(value) is bool else str(value)


def quoted(text: str) -> str:
    """Text in quotes, which Hydra does not interpret."""
    # Hydra reads two backslashes before a quote as one, and other backslashes as they are.
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
