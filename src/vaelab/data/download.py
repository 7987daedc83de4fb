"""What the sources that can be downloaded have in common."""

import http.client
import socket
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

# What a server, a network, a disk or half an archive can raise.
DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)


@contextmanager
def downloading(seconds: float = 20) -> Iterator[None]:
    """Gives torchvision's downloads a time-out, which they lack, and keeps what they print to themselves."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def first_line(error: BaseException) -> str:
    """An error's message in one line."""
    return (str(error).strip().splitlines() or ["no details"])[0]
