"""Prevents random errors in the first results of torch on a CPU.

Each vector function of MKL chooses its kernel in its first call. If several threads make this call together, one of
them may run a kernel of low accuracy. Then the first ``exp`` of a process has errors of up to 2e-4 in some elements, in
about one process of ten (github.com/pytorch/pytorch/issues/188792; MKL before 2025), and one seed gives two results.
A call with a single element runs in one thread, and chooses the kernel.
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
