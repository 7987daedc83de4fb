"""Keeps torch's first results on a CPU from being wrong by chance.

MKL's vector functions pick their kernel in the first call of each. Where that call is shared out over threads, one of
them may run a kernel of low accuracy meanwhile: the first ``exp`` of a process is then wrong by up to 2e-4 in a part of
its elements, in one process out of ten or so (github.com/pytorch/pytorch/issues/188792; MKL before 2025). One seed
gives two results then. A call with a single element is not shared out, and settles the choice.
"""

import torch

_FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "expm1", "lgamma", "log", "log10"),
    *("log1p", "log2", "sigmoid", "sin", "sinh", "sqrt", "tan", "tanh"),
)


def initialize_vector_functions() -> None:
    """Calls each of MKL's vector functions once, in each precision."""
    for dtype in (torch.float32, torch.float64):
        one = torch.full((1,), 0.5, dtype=dtype)
        for name in _FUNCTIONS:
            getattr(torch, name)(one)
