"""vaelab: variational autoencoders whose likelihood, prior, posterior, bound and networks are independent choices.

Importing the package is cheap: torch and lightning are loaded by the modules that need them, so that ``--help`` and
a mistyped option answer at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from vaelab import _torchvision

if TYPE_CHECKING:
    from vaelab.model import Model

__version__ = "0.1.0"

_torchvision.install()


def load(run: str | Path = "latest", device: str = "cpu") -> "Model":
    """A trained model to use from Python, see :class:`vaelab.model.Model`.

    Args:
        run: a run folder, a checkpoint, ``latest``, or a folder with ``model.safetensors``.
        device: where it computes, as torch names it.
    """
    from vaelab.model import Model

    return Model(run, device)


def from_pretrained(model: str | Path, device: str = "cpu") -> "Model":
    """A model that ``export.py`` has made ready for others, see :func:`load`.

    Args:
        model: its folder; or ``namespace/name`` on the Hugging Face Hub, from which its weights and their configuration
            are downloaded, and nothing else.
        device: where it computes, as torch names it.
    """
    from vaelab.model import Model, fetched

    return Model(fetched(model), device)
