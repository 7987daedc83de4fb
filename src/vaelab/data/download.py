"""What the sources that can be downloaded have in common."""

import http.client
import logging
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

# What a server, a network, a disk or half an archive can raise.
_ERRORS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)
_TIME_OUT = 20  # seconds


def absent(name: str, folder: Path, looked_for: Sequence[str], reason: str = "") -> UserError:
    """What is said where a data set is not in its folder."""
    return UserError(
        f"{name} is not in {folder.absolute()} (looked for {', '.join(looked_for)}){reason}: "
        "set DATA_DIR to the folder that holds it, or type data=digits, which needs no files"
    )


@contextmanager
def downloading(name: str, folder: Path, looked_for: Sequence[str], data_dir: Path) -> Iterator[Path]:
    """A folder to download to, on the same disk as the data set's, which is gone afterwards.

    So an interruption leaves nothing that looks like the data set, and of two processes that start at once each has a
    folder of its own. torchvision's downloads get a time-out, which they lack, and print nothing.

    Args:
        name: of the data set.
        folder: where it belongs.
        looked_for: what is not there.
        data_dir: where data sets are; it is made.

    Raises:
        UserError: whatever goes wrong inside.
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
