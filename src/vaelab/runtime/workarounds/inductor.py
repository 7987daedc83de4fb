"""The options of a mode of ``torch.compile``.

``torch.compile`` takes either a mode or options. This project needs a mode and one more option (the random numbers of
uncompiled code), so it looks up the options of the mode. torch has no public function for that.
"""

from typing import Any


def mode_options(mode: str) -> dict[str, Any]:
    """The options of inductor for a mode."""
    from torch._inductor import list_mode_options  # here, because the import takes a second

    return dict(list_mode_options(mode))
