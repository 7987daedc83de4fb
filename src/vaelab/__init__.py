"""vaelab: variational autoencoders whose likelihood, prior, posterior, bound and networks are independent choices.

Importing the package is cheap: torch and lightning are loaded by the modules that need them, so that ``--help`` and
a mistyped option answer at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from vaelab.runtime import renamed
from vaelab.runtime.version import __version__ as __version__
from vaelab.runtime.workarounds import torchvision

if TYPE_CHECKING:
    from vaelab.runs.api import Model

renamed.install()
torchvision.install()


def load(run: str | Path = "latest", device: str = "cpu") -> "Model":
    """A trained model to use from Python, see :class:`vaelab.runs.api.Model`.

    Args:
        run: a run folder, a checkpoint, ``latest``, or a folder with ``model.safetensors``.
        device: where it computes, as torch names it.
    """
    from vaelab.runs.api import Model

    return Model(run, device)


def from_pretrained(model: str | Path, device: str = "cpu") -> "Model":
    """A model that ``export.py`` has made ready for others, see :func:`load`.

    Args:
        model: its folder; or ``namespace/name`` on the Hugging Face Hub, from which its weights and their configuration
            are downloaded, and nothing else.
        device: where it computes, as torch names it.
    """
    from vaelab.runs.api import Model, local_folder

    return Model(local_folder(model), device)
