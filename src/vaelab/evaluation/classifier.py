"""A small classifier of a data set's images. Its features measure the quality of samples.

It is not an Inception network. Distances between its features compare models of one data set with each other. They
cannot be compared with published distances.
"""

import hashlib
import logging
import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from vaelab.data.batches import Batches, to_floats
from vaelab.data.source import Images
from vaelab.runtime.files import atomic_write
from vaelab.runtime.random import evaluation_seed

log = logging.getLogger(__name__)

_VERSION = 1  # raise it with every change to the network or its training
_STEPS = 1000
_BATCH = 128
_FEATURES = 128


class Classifier(nn.Module):
    """Two convolutions and two dense layers, for images of any size. Features lie between -1 and 1.

    Args:
        channels: of the images.
        classes: how many.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.BatchNorm2d(32),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(64),
            nn.AdaptiveAvgPool2d(7),
            nn.Flatten(),
            nn.Dropout(0.5),  # without it, features of training images would differ from those of new images
            nn.Linear(64 * 7 * 7, _FEATURES),
            nn.Tanh(),  # a bounded feature cannot die, and cannot outgrow the others
        )
        self.head = nn.Linear(_FEATURES, classes)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features (N, 128) of images (N, C, H, W), floats in [0, 1] or uint8: float64, on the CPU."""
        device = next(self.parameters()).device
        parts = images.split(500)
        return torch.cat([self.trunk(to_floats(part.to(device))).cpu().double() for part in parts])

    @torch.no_grad()
    def probabilities(self, features: Tensor) -> Tensor:
        """Class probabilities (N, classes) from features (N, 128): float64, on the CPU."""
        weight = self.head.weight
        return self.head(features.to(weight)).softmax(1).cpu().double()


def trained(train: Images, classes: int, cache_dir: Path | None, device: torch.device) -> Classifier:
    """The classifier of these images: loaded from the cache, or trained and then cached.

    Args:
        train: uint8 images and labels to train with.
        classes: how many.
        cache_dir: of the weights; ``None`` for no cache.
        device: to train on.
    """
    digest = hashlib.sha256(f"{_VERSION} {list(train.images.shape)} {classes}".encode())
    digest.update(train.images.numpy().tobytes())
    digest.update(train.labels.numpy().tobytes())
    path = None if cache_dir is None else cache_dir / f"classifier-{digest.hexdigest()[:16]}.pt"
    with evaluation_seed(device):  # the classifier never changes, nor do the random numbers after it
        model = Classifier(train.images.shape[1], classes).to(device)
        if path is None or not _load(model, path):
            _train(model, train, device)
            if path is not None:
                _save(model, path)
    return model.eval()


def _load(model: Classifier, path: Path) -> bool:
    """Loads the weights, and returns whether there were any."""
    if path.is_file():
        try:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            return True
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
            path.unlink()  # it is damaged: train again
    return False


def _save(model: Classifier, path: Path) -> None:
    try:
        with atomic_write(path) as file:
            torch.save(model.state_dict(), file)
    except (OSError, RuntimeError) as error:  # torch raises the latter if the disk is full
        log.warning("the classifier could not be cached, and will be trained again: %s", error)


def _train(model: Classifier, train: Images, device: torch.device) -> None:
    batches = Batches(train.images.to(device), train.labels.to(device), _BATCH, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=_STEPS)

    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield from batches

    with torch.enable_grad():
        steps = zip(range(_STEPS), endless(), strict=False)
        for _, (x, y, _) in track(
            steps, "training a classifier to compare samples with images", _STEPS, transient=True
        ):
            loss = F.cross_entropy(model.head(model.trunk(x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
