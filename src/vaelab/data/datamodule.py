"""From a source to batches: splits, binarisation, and the device that holds the images."""

import logging
from collections.abc import Mapping
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from vaelab.data.batches import Batch, Batches, Binarization, binarize
from vaelab.data.source import Images, Source
from vaelab.runtime.errors import UserError
from vaelab.runtime.overrides import typed
from vaelab.runtime.validation import Fraction, ImageShape, PositiveInt, Seed, checked

log = logging.getLogger(__name__)

# Validation and test images are binarised once, with fixed seeds: equally in every run, on every device and machine.
SPLIT_SEEDS = {"train": 1_000_003, "val": 1_000_033, "test": 1_000_037}


def _fits(images: Tensor, device: torch.device) -> bool:
    """Whether these images take at most half of the free memory of a device."""
    return device.type != "cuda" or images.nbytes <= torch.cuda.mem_get_info(device)[0] / 2


def _fewer(images: int) -> int | str:
    """A possible value of ``validation`` for so few training images."""
    return max(1, images // 10) if images > 1 else "test"


class ImageDataModule(L.LightningDataModule):
    """Training, validation and test batches of a data set.

    Validation images are the last ones of the training split. Only the test uses the official test split, unless
    ``validation="test"``.

    Args:
        source: the data set, see :class:`vaelab.data.source.Source`.
        image_shape: (C, H, W) that its images must have.
        batch_size: training images per batch, of all processes together: a step is the same on any number of devices.
        eval_batch_size: validation and test images per batch, of all processes together.
        validation: the number or fraction of training images to validate on. ``test`` trains on the whole training
            split and validates on the test split, as some published protocols do.
        binarize: ``none``. ``threshold``: grey > 0.5. ``dynamic``: each pixel is one with its grey value as the
            probability (Salakhutdinov and Murray 2008). Training images are drawn in every epoch, validation and test
            images once. ``static``: all images are drawn once, with a fixed seed. They are not Larochelle's binary
            MNIST, which is a separate download.
        limit: the number of images to use of each split, from its beginning; ``None`` for all.
        shuffle: whether every epoch has a new random order of the training images.
        drop_last: whether to leave out an incomplete last batch of training images.
        seed: the seed of the order and of the dynamic binarisation.
        classes: the number of classes that the source must have, for a conditional model; ``None`` for any.

    Raises:
        UserError: a value is impossible, or the source's images have another shape.
    """

    @checked
    def __init__(
        self,
        source: Source,
        image_shape: ImageShape,
        batch_size: PositiveInt = 128,
        eval_batch_size: PositiveInt = 500,
        validation: PositiveInt | Fraction | Literal["test"] = 5000,
        binarize: Binarization = "none",
        limit: PositiveInt | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: Seed = 0,
        classes: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.source, self.image_shape = source, tuple(image_shape)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation, self.binarization, self.limit = validation, binarize, limit
        self.shuffle, self.drop_last, self.seed, self.classes = shuffle, drop_last, seed, classes
        self.splits: dict[str, Images] = {}
        self._training: Batches | None = None
        self._resumed: dict[str, Any] | None = None

    @property
    def is_binary(self) -> bool:
        """Whether pixels are 0 or 1."""
        return self.binarization != "none"

    @property
    def found(self) -> dict[str, Any]:
        """The settings that the source has found in its files, for a checkpoint; most sources find none."""
        return getattr(self.source, "found", {})

    def adopt(self, found: Mapping[str, Any]) -> None:
        """Makes the source read its files with the settings that were found at the beginning of a training."""
        if found:
            self.source.adopt(found)  # type: ignore[attr-defined]  # of sources that find settings

    def prepare_data(self) -> None:
        """Downloads or renders missing files."""
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Loads and binarises the splits, once; ``dynamic`` training images are binarised in each batch instead."""
        if self.splits:
            return
        train, test = self.source.load(train=True), self.source.load(train=False)
        for split in (train, test):
            if split.images.dtype != torch.uint8 or tuple(split.images.shape[1:]) != self.image_shape:
                raise UserError(
                    f"{self.source.name} holds {split.images.dtype} images of shape {tuple(split.images.shape[1:])}, "
                    f"not uint8 of {self.image_shape}: type {typed('data.image_shape', list(split.images.shape[1:]))}"
                )
        found = len(self.source.classes)
        if self.classes is not None and found != self.classes:
            raise UserError(f"{self.source.name} has {found} classes, not {self.classes}: type data.classes={found}")
        if self.validation == "test":
            val = test
        else:
            number = self.validation
            count = len(train.images) - (
                round(number * len(train.images)) or 1 if isinstance(number, float) else number
            )
            if count < 1:
                raise UserError(
                    f"data.validation={self.validation} leaves none of {self.source.name}'s {len(train.images)} "
                    f"training images: type e.g. data.validation={_fewer(len(train.images))}, or add images"
                )
            train, val = train.part(slice(count)), train.part(slice(count, None))
        splits = {"train": train, "val": val, "test": test}
        limited = {name: split.part(slice(self.limit)) for name, split in splits.items()}
        self.splits = {
            name: split._replace(images=self._binarize_once(split.images, name)) for name, split in limited.items()
        }

    def _binarize_once(self, images: Tensor, split: str) -> Tensor:
        if self.binarization == "threshold":
            return (images > 127).to(torch.uint8).mul_(255)
        if self.binarization == "static" or (self.binarization == "dynamic" and split != "train"):
            name = "test" if split == "val" and self.validation == "test" else split
            return binarize(images, torch.Generator().manual_seed(SPLIT_SEEDS[name]))
        return images

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch itself, which is already on the device."""
        return batch

    def _batches(self, split: str, **options: Any) -> Batches:
        trainer = self.trainer
        device = trainer.strategy.root_device if trainer is not None else torch.device("cpu")
        images, labels = self.splits[split][:2]
        if _fits(images, device):
            images, labels = images.to(device), labels.to(device)
        else:
            log.info("the %d %s images stay in main memory: they would fill the GPU", len(images), split)
        return Batches(
            images,
            labels,
            device=device,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=trainer.world_size if trainer is not None else 1,
            **options,
        )

    def train_dataloader(self) -> Batches:
        """Batches of training images.

        Raises:
            UserError: a batch has fewer images than there are processes.
        """
        processes = 1 if self.trainer is None else self.trainer.world_size
        if self.batch_size < processes:
            raise UserError(
                f"data.batch_size={self.batch_size} is shared by {processes} processes: type e.g. "
                f"data.batch_size={128 * processes}, or fewer trainer.devices"
            )
        self._training = self._batches(
            "train",
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            drop_last=self.drop_last,
            dynamic=self.binarization == "dynamic",
            seed=self.seed,
        )
        if self._resumed is not None:
            self._training.resume(self._resumed)
            self._resumed = None
        return self._training

    def val_dataloader(self) -> Batches:
        """Batches of validation images, in order."""
        return self._batches("val", batch_size=self.eval_batch_size)

    def test_dataloader(self) -> Batches:
        """Batches of test images, in order."""
        return self._batches("test", batch_size=self.eval_batch_size)

    # Lightning could save the state of the batches itself, but it restores it only within an epoch.

    def state_dict(self) -> dict[str, Any]:
        """The position in the training batches, for the checkpoint."""
        if self._training is None:
            return {}
        state = self._training.state()
        if self.trainer is not None and state["next"] >= self.trainer.num_training_batches:
            state["next"] = len(self._training)  # the epoch is over: trainer.limit_train_batches left the rest out
        return {"training": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes the training batches resume at the position of a checkpoint."""
        self._resumed = state_dict.get("training")
