"""The Python interface of a trained model, with NumPy arrays in and out: :func:`vaelab.load`."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaelab.data.batches import to_floats
from vaelab.models.importance import importance_bound, log_weights
from vaelab.runs import checkpoint
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.random import evaluation_seed

Floats = npt.NDArray[np.float32]
_AT_ONCE = 500


def local_folder(model: str | Path) -> Path:
    """The folder of a model: this folder, or else a copy downloaded from the Hugging Face Hub.

    Raises:
        UserError: there is neither, or ``huggingface_hub`` is not installed.
    """
    folder = Path(model).expanduser()
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(model)):
        return folder
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(
            f'{model} is no folder here, and the hub needs huggingface_hub: type pip install -e ".[export]"'
        ) from error
    try:
        return Path(snapshot_download(str(model), allow_patterns=[checkpoint.WEIGHTS, checkpoint.SETTINGS]))
    except Exception as error:  # the network, the hub or the disk may fail, each with its own errors
        raise UserError(f"{model} is no folder here, and could not be downloaded: {first_line(error)}") from error


class Model:
    """A trained model, rebuilt from its checkpoint. The data set is not needed.

    Images are arrays (N, C, H, W), or (N, H, W) with one channel: bytes from 0 to 255, or floats from 0 to 1. If the
    model was trained on binary images, grey images are first binarised at one half. A conditional model needs a label
    for each image, integers (N,). No method changes the random state of torch.

    Args:
        run: a run folder, a checkpoint, or ``latest``.
        device: where the model computes, as torch names it.

    Attributes:
        image_shape: (C, H, W).
        latent_dim: the number of latent dimensions.
        classes: the number of classes of a conditional model; ``None`` if the model is not conditional.
        config: the resolved configuration of its training.

    Raises:
        UserError: there is no such checkpoint, or it is not a checkpoint of this project.
    """

    def __init__(self, run: str | Path = "latest", device: str = "cpu") -> None:
        with evaluation_seed(torch.device("cpu")):  # building a model draws initial weights
            saved = checkpoint.rebuild(checkpoint.find(run))
        self.vae, self.config = saved.vae.to(device), saved.config
        self.image_shape, self.latent_dim, self.classes = self.vae.image_shape, self.vae.latent_dim, self.vae.classes
        self._device = torch.device(device)
        self._is_binary = (self.config.get("data") or {}).get("binarize", "none") != "none"

    def encode(self, images: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> Floats:
        """The latent codes of images, (N, latent_dim): the centres of q(z|x)."""
        return self._each(lambda x, y: self.vae.encode(x, y).centre, self._images(images), labels)

    def decode(self, latents: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> Floats:
        """The images decoded from latents (N, latent_dim): the means of p(x|z), (N, C, H, W), in [0, 1]."""
        z = torch.tensor(np.asarray(latents, np.float32))
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise UserError(f"latents have shape {tuple(z.shape)}, not (N, {self.latent_dim})")
        return self._each(lambda z, y: self.vae.decode(z, y).mean, z, labels)

    def reconstruct(self, images: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> Floats:
        """The reconstructions of images, (N, C, H, W), in [0, 1]: the means of p(x|z) at their codes."""
        return self._each(self.vae.reconstruct, self._images(images), labels)

    def sample(
        self, count: int = 16, labels: npt.ArrayLike | None = None, seed: int = 0, temperature: float = 1.0
    ) -> Floats:
        """Samples (count, C, H, W), in [0, 1]: the means of p(x|z) at latents drawn from the prior.

        Args:
            count: the number of samples.
            labels: for a conditional model, the class of each sample; by default the classes in turn.
            seed: of the random latents.
            temperature: multiplies the distance of latents from the centre of the prior. Less than 1 gives more typical
                samples. The prior must have a centre.
        """
        with torch.no_grad(), evaluation_seed(self._device):
            torch.manual_seed(seed)
            z = self.vae.sample_latents(count, temperature)
        if labels is None and self.classes is not None:
            labels = np.arange(count) % self.classes
        return self.decode(z.cpu().numpy(), labels)

    def score(
        self, images: npt.ArrayLike, labels: npt.ArrayLike | None = None, samples: int = 16, seed: int = 0
    ) -> Floats:
        """Lower bounds on log p(x), (N,), by importance sampling; in nats if the loss is a likelihood of the images.

        Args:
            images: see the description of the class.
            labels: for a conditional model.
            samples: latents per image. More of them give a higher bound, closer to log p(x).
            seed: of the random latents.
        """
        with evaluation_seed(self._device):
            torch.manual_seed(seed)
            return self._each(
                lambda x, y: importance_bound(log_weights(self.vae, x, samples, y)), self._images(images), labels
            )

    def _images(self, images: npt.ArrayLike) -> Tensor:
        array = np.asarray(images)
        if array.ndim == 3 and self.image_shape[0] == 1:
            array = array[:, None]
        if array.ndim != 4 or array.shape[1:] != self.image_shape:
            raise UserError(f"images have shape {array.shape}, not (N, {', '.join(map(str, self.image_shape))})")
        is_float = np.issubdtype(array.dtype, np.floating)
        if array.dtype != np.uint8 and not (is_float and len(array) and array.min() >= 0 and array.max() <= 1):
            raise UserError(f"images are {array.dtype}, not bytes from 0 to 255 or floats from 0 to 1")
        x = to_floats(torch.tensor(np.ascontiguousarray(array)))
        return (x > 0.5).float() if self._is_binary else x

    @torch.no_grad()
    def _each(self, function: Any, values: Tensor, labels: npt.ArrayLike | None) -> Floats:
        """The results of a function of a batch and its labels, for all batches."""
        if self.classes is None:
            parts: list[Tensor | None] = [None] * len(values.split(_AT_ONCE))
        else:
            y = torch.tensor(np.array([] if labels is None else labels), dtype=torch.int64)
            if y.shape != values.shape[:1] or (len(y) and not 0 <= int(y.min()) <= int(y.max()) < self.classes):
                raise UserError(f"this model needs a label from 0 to {self.classes - 1} for each of {len(values)}")
            parts = [part.to(self._device) for part in y.split(_AT_ONCE)]
        batches = zip(values.split(_AT_ONCE), parts, strict=True)
        return np.concatenate([function(x.to(self._device), y).float().cpu().numpy() for x, y in batches])
