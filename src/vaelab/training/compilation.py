"""The compiled training step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.workarounds.inductor import mode_options

Step = Callable[..., tuple[Tensor, Tensor]]


def compiled_step(step: Step, mode: str = "default") -> Step:
    """A training step, compiled when it is first called, once for each size of batch.

    It draws the same random numbers as the step itself, so the results differ only by rounding.

    Args:
        step: a function that returns the loss and the sums of the terms.
        mode: of ``torch.compile``; ``reduce-overhead`` records CUDA graphs.
    """
    options = {**mode_options(mode), "fallback_random": True}
    compiled: Any = torch.compile(step, fullgraph=True, dynamic=False, options=options)

    def call(*args: Any) -> tuple[Tensor, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        try:
            loss, sums = compiled(*args)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise UserError(
                f"compile: the step cannot be compiled ({first_line(error)}): type compile=false"
            ) from error
        return loss, sums.clone()  # a recorded graph writes into the same memory at every step

    return call
