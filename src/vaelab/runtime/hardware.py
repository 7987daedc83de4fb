"""Settings of the machine: the allocator, memory layouts and the precision of arithmetic.

The choices are logged in ``train.log`` of the run.
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
    """Sets glibc's allocator to keep freed memory, and returns whether this is possible.

    By default, glibc maps a block of memory for every large tensor, and unmaps it when the tensor is freed. On a CPU,
    a training step does this for every activation, and the system zeroes the pages each time. Small convolutional
    networks spend a third of their time on it. With this setting, the process keeps its peak memory.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    # Some versions do not raise the threshold from which blocks are mapped above 32 MiB: none are mapped.
    mapped = mallopt(_M_MMAP_MAX, 0)
    trimmed = mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    kept = bool(mapped and trimmed)
    log.info("freed memory is %s", "kept" if kept else "not kept: glibc refuses")
    return kept


@contextmanager
def flushed_denormals() -> Iterator[bool]:
    """Rounds denormal numbers (below 1.2e-38 in 32 bits) to zero, as GPUs do; yields whether the processor can.

    Processors take a hundred times longer to compute with such numbers. Units whose gradients are zero make many of
    them: Adam's averages of their gradients shrink by a tenth at every step. A convolutional network with many such
    units takes twice the time.

    It has no effect on threads that torch has started already, so enter it before torch computes anything.
    """
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # NumPy before 2.3 computes this at the first call, and would warn about flushed denormals
    is_possible = torch.set_flush_denormal(True)
    log.info("denormal numbers are %s", "flushed to zero" if is_possible else "kept: this processor cannot flush them")
    try:
        yield is_possible
    finally:
        torch.set_flush_denormal(False)


def uses_channels_last(setting: bool | Literal["auto"], precision: str) -> bool:
    """Whether feature maps are stored with the channels of a pixel side by side (channels last).

    Args:
        setting: ``true``, ``false``, or ``auto``: only in 16 bits, where convolutions are faster with it.
        precision: of the trainer.
    """
    chosen = "16" in precision if setting == "auto" else bool(setting)
    log.info("feature maps are kept %s", "pixel by pixel (channels last)" if chosen else "channel by channel")
    return chosen


def set_matmul_precision(precision: MatrixProducts) -> None:
    """Sets the precision of 32-bit matrix products and convolutions on a GPU.

    By default, torch computes convolutions in TensorFloat-32 and matrix products in 32 bits.

    Args:
        precision: ``highest`` for 32 bits; ``high`` for TensorFloat-32 (a mantissa of 10 bits), on GPUs since Ampere;
            ``medium`` for bfloat16, where there are kernels.
    """
    if torch.cuda.is_available():  # a CPU would round its products too
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision != "highest"


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def device_name(device: torch.device) -> str:
    """The name of a device for people: of a GPU its product name, else ``CPU`` or ``MPS``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
