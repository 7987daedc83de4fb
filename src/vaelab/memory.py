"""Keeps memory that was freed, instead of handing it back to the system at every step."""

import ctypes
import logging
import sys

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep what is freed; whether it could be told.

    By default glibc maps a large block for every large tensor and unmaps it as soon as it is freed. On a CPU a training
    step does this for every activation, and the system zeroes the pages each time: small convolutional networks spend
    a third of their time on it. The process holds on to its peak memory instead.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    # Rather than raise the threshold from which blocks are mapped, which some versions cap at 32 MiB.
    mapped = mallopt(_M_MMAP_MAX, 0)
    trimmed = mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    kept = bool(mapped and trimmed)
    log.debug("freed memory is %s", "kept" if kept else "not kept: glibc refuses")
    return kept
