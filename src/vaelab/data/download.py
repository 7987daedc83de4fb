"""The parts that all downloads of data sets share: a temporary folder, a time-out and the error."""

import http.client
import logging
import re
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

from vaelab.runtime.errors import UserError, first_line

log = logging.getLogger(__name__)

# The errors that a server, a network, a disk or a truncated archive can cause.
_ERRORS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)
_TIME_OUT = 20  # seconds


def absent(name: str, folder: Path, looked_for: Sequence[str], reason: str = "") -> UserError:
    """The error for a data set that is not in its folder."""
    return UserError(
        f"{name} is not in {folder.absolute()} (looked for {', '.join(looked_for)}){reason}: "
        "set DATA_DIR to the folder that holds it (for a trained model, type data_dir=<this folder>), or train with "
        "data=digits, which needs no files"
    )


def named_folders(data_dir: Path, name: str) -> list[Path]:
    """The subfolders of the folder of data sets that have the name of one, with any case and any hyphens."""

    def plain(text: str) -> str:
        return re.sub(r"[-_ ]", "", text).lower()

    try:
        return sorted(path for path in data_dir.iterdir() if plain(path.name) == plain(name) and path.is_dir())
    except OSError:  # it does not exist, or is not readable: the download, which follows, names the reason
        return []


@contextmanager
def downloading(name: str, folder: Path, looked_for: Sequence[str], data_dir: Path) -> Iterator[Path]:
    """A temporary folder to download to, on the same disk as the data set.

    An interrupted download therefore leaves nothing that looks like the data set. Two processes that start at once
    download to different folders. torchvision's downloads get the time-out that they lack, and print nothing.

    Args:
        name: the name of the data set.
        folder: the folder that the data set belongs in.
        looked_for: the files or folders that are missing.
        data_dir: the folder of data sets; it is created if necessary.

    Raises:
        UserError: the download fails.
    """
    log.info("%s is not in %s: downloading it", name, folder)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIME_OUT)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with redirect_stdout(StringIO()), tempfile.TemporaryDirectory(prefix=f".{name}-", dir=data_dir) as temporary:
            yield Path(temporary)
    except _ERRORS as error:
        reason = f" and could not be downloaded ({type(error).__name__}: {first_line(error)})"
        raise absent(name, folder, looked_for, reason) from error
    finally:
        socket.setdefaulttimeout(before)
