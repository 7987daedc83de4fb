"""vaelab: variational autoencoders whose likelihood, prior, posterior, objective and networks are independent choices.

The import of the package is fast: only the modules that need torch and Lightning import them. So ``--help`` and error
messages about options do not wait for them.
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
    """Loads a trained model, see :class:`vaelab.runs.api.Model`.

    Args:
        run: a run folder, a checkpoint, ``latest``, or a folder with ``model.safetensors``.
        device: of torch, such as ``cuda``.
    """
    from vaelab.runs.api import Model

    return Model(run, device)


def from_pretrained(model: str | Path, device: str = "cpu") -> "Model":
    """Loads a model that ``export.py format=hub`` has written, see :func:`load`.

    Args:
        model: its folder, or ``namespace/name`` on the Hugging Face Hub. Only the weights and their configuration are
            downloaded.
        device: of torch, such as ``cuda``.
    """
    from vaelab.runs.api import Model, local_folder

    return Model(local_folder(model), device)
