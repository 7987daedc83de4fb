"""What the machine is told before it computes: its allocator, its layouts, and how exact its arithmetic is to be.

What was chosen is said in a run's ``train.log``.
"""

import ctypes
import logging
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from vaelab.runtime.validation import MatrixProducts

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
    log.info("freed memory is %s", "kept" if kept else "not kept: glibc refuses")
    return kept


@contextmanager
def flushed_denormals() -> Iterator[bool]:
    """Has numbers too small for 32 bits (below 1.2e-38) counted as zero, as GPUs do; yields whether it can be had.

    Processors take a hundred times longer over them. Units that have fallen silent make many: Adam's averages of their
    gradients shrink by a tenth at every step until they are as small as that. A convolutional network of which many
    are silent takes twice the time.

    Threads that torch has started before go on as they were: this comes before it has computed anything.
    """
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # which NumPy before 2.3 looks at when first asked, and warns of what it then sees
    can = torch.set_flush_denormal(True)
    log.info("denormal numbers are %s", "flushed to zero" if can else "kept: this processor cannot flush them")
    try:
        yield can
    finally:
        torch.set_flush_denormal(False)


def uses_channels_last(setting: bool | Literal["auto"], precision: str) -> bool:
    """Whether convolutions are to see the channels of a pixel side by side.

    Args:
        setting: ``true``, ``false``, or ``auto``: in 16 bits, where they gain by it; in 32 they do not.
        precision: the trainer's."""
    chosen = "16" in precision if setting == "auto" else bool(setting)
    log.info("feature maps are kept %s", "pixel by pixel (channels last)" if chosen else "channel by channel")
    return chosen


def set_matmul_precision(precision: MatrixProducts) -> None:
    """How exact products of 32-bit matrices and convolutions are on a GPU.

    Args:
        precision: ``highest`` for 32 bits; ``high`` for TensorFloat-32, of which 10 bits are the mantissa, on GPUs
            since Ampere; ``medium`` for bfloat16, where there are kernels. (Of torch's own accord convolutions would
            be in TensorFloat-32 and matrix products in 32 bits.)"""
    if torch.cuda.is_available():  # a CPU would round its products too
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision != "highest"


def processor() -> str:
    """What the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def device_name(device: torch.device) -> str:
    """A device as people call it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
