"""Environment variables, and the file ``.env`` that sets them. An empty variable counts as one that is not set."""

import codecs
import io
import os
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from vaelab.runtime.errors import UserError

# The variables that this project, wandb, Lightning, torchrun and Slurm read. An empty one makes some of them fail.
# Others, such as CUDA_VISIBLE_DEVICES, have a meaning when they are empty.
_READ: tuple[str, ...] = ("DATA_DIR", "WANDB_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "NODE_RANK")
_READ += ("SLURM_", "SUBMITIT_", "TORCHELASTIC_", "HYDRA_", "VAELAB_", "OMP_")
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def variable(name: str) -> str | None:
    """The value of an environment variable; ``None`` if it is not set or empty."""
    return os.environ.get(name) or None


def remove_empty() -> None:
    """Removes the empty variables among those that count as not set."""
    for name in [name for name, value in os.environ.items() if not value and name.startswith(_READ)]:
        del os.environ[name]


def remove(prefixes: tuple[str, ...], kept: str = "") -> list[str]:
    """Removes the variables whose names start with any of these prefixes, except one, and returns their names."""
    names = sorted(name for name in os.environ if name.startswith(prefixes) and name != kept)
    for name in names:
        del os.environ[name]
    return names


def load(path: Path) -> None:
    """Sets the variables of a file, except those that are set already.

    Args:
        path: a text file with a line ``NAME=value`` for each variable; it may be missing. A folder of this name is
            ignored, because virtual environments often have it.

    Raises:
        UserError: the file cannot be read, or a line is no such line. The error does not show the line, which may be a
            key.
    """
    remove_empty()
    if not path.exists() or path.is_dir():
        return
    text = _text(path)
    for line in parse_stream(io.StringIO(text)):
        if line.error or (line.key is not None and line.value is None):
            text = line.original.string  # with the empty lines before it
            number = line.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            raise UserError(f"{path}, line {number}: type NAME=value there, or # before a comment")
    for name, value in dotenv_values(stream=io.StringIO(text)).items():
        if value:
            os.environ.setdefault(name, value)


def _text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark, as PowerShell's ``>`` writes it."""
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable, or remove it") from error
    encoding = next((name for mark, name in _MARKS.items() if contents.startswith(mark)), "utf-8")
    try:
        text = contents.decode(encoding)
    except UnicodeDecodeError as error:
        line = contents[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line} is no UTF-8 text: save the file as UTF-8 in an editor") from error
    if "\0" in text:
        raise UserError(f"{path} is no text in UTF-8: save it as UTF-8 in an editor")
    return text
