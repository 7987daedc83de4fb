"""Draws images with a trained model from its checkpoint: what ``generate.py`` runs."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape
from torch import Tensor

from vaelab.commands.config_validation import check_generation, listed
from vaelab.data.image_files import read_image
from vaelab.data.image_survey import range_of, survey
from vaelab.data.source import Images
from vaelab.runs.trained_model import NamedImages, TrainedModel
from vaelab.runtime import console
from vaelab.runtime.console import displayable
from vaelab.runtime.errors import NotApplicable, UserError
from vaelab.runtime.files import write_npz
from vaelab.runtime.overrides import typed
from vaelab.runtime.random import evaluation_seed
from vaelab.visualization.gallery import GalleryImage
from vaelab.visualization.plots import save_gif, save_png

_LONGEST_NAME = 24  # characters that fit beside an image
# A negative is proposed if its brightness is nearer to that of samples by this much; black is 0, white is 1.
_BRIGHTNESS_MARGIN = 0.2


def _chosen_images(cfg: DictConfig, model: TrainedModel) -> NamedImages | None:
    """The test images and the files that the user has named; ``None`` if there are none."""
    numbers, files, labels = listed(cfg.images), listed(cfg.files), listed(cfg.labels)
    parts = [model.numbered(numbers)] if numbers else []
    if files or labels:
        parts.append(_from_files(files, _labels(labels, len(files), model), cfg.invert, model))
    if not parts:
        return None
    images, classes = zip(*((part.images.images, part.images.labels) for part in parts), strict=True)
    return NamedImages(Images(torch.cat(images), torch.cat(classes)), [name for part in parts for name in part.names])


def _labels(labels: list[Any], count: int, model: TrainedModel) -> Tensor:
    """The classes of files, which the user types as numbers or names."""
    if model.vae.classes is None:
        if labels:
            raise UserError(f"labels={labels}: this model is not conditional; leave labels out")
        return torch.zeros(count, dtype=torch.int64)
    if len(labels) != count:
        raise UserError(
            f"this model needs the class of each image, and there are {len(labels)} labels for {count} files: "
            f"type e.g. {typed('labels', [number % model.vae.classes for number in range(count)])}"
        )
    numbers = []
    for label in labels:
        number = label
        if not isinstance(label, int):
            name = displayable(str(label))
            number = model.classes.index(name) if name in model.classes else -1
        if not 0 <= number < model.vae.classes:
            raise UserError(f"labels={label}: no such class; choose from 0 to {model.vae.classes - 1}, or by name")
        numbers.append(number)
    return torch.tensor(numbers, dtype=torch.int64)


def _from_files(files: list[Any], labels: Tensor, invert: bool, model: TrainedModel) -> NamedImages:
    """Image files of any size, converted to the shape of the model; prints the conversion of each file."""
    channels = model.vae.image_shape[0]
    if channels not in (1, 3):
        raise UserError(f"files=...: the model's images have {channels} channels, and image files have one or three")
    brightness = float(model.decode(model.vae.sample_latents(64), model.vae.classes_in_turn(64)).mean())
    images, names = [], []
    paths = [Path(str(file)).expanduser() for file in files]
    pixel_range = getattr(model.datamodule.source, "pixel_range", None)
    if not isinstance(pixel_range, tuple):  # the model was not trained on images of more than 8 bits
        pixel_range = range_of(survey(paths, model.vae.image_shape), "files=...", "convert them to 8 bits")
    for file, path, label in zip(files, paths, labels.tolist(), strict=True):
        array, steps = read_image(path, model.vae.image_shape, pixel_range)
        if invert:
            array, steps = 255 - array, [*steps, "inverted"]
        mean = array.mean() / 255
        if model.datamodule.is_binary:
            array, steps = np.where(array > 127, np.uint8(255), np.uint8(0)), [*steps, "thresholded at one half"]
        if model.vae.classes is not None:  # a number can be meant as the name of another class
            steps = [*steps, f"of class {model.classes[label]}"]
        console.print_line(f"{escape(str(file))}: {escape(', '.join(steps)) or 'unchanged'}")
        if abs(mean - brightness) - abs(1 - mean - brightness) > _BRIGHTNESS_MARGIN:
            kind, other = ("light", "dark") if mean > brightness else ("dark", "light")
            hint = "invert=false" if invert else "invert=true"
            console.print_line(
                f"[dim]{escape(path.name)} is {kind}, and this model's images are {other}: {hint}?[/dim]"
            )
        images.append(torch.tensor(array))
        name = displayable(path.name)
        half = _LONGEST_NAME // 2
        names.append(name if len(name) <= _LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}")
    return NamedImages(Images(torch.stack(images), labels), names)


def _write(drawn: GalleryImage, name: str, cfg: DictConfig) -> list[Path]:
    """Writes one image of the gallery in the chosen formats, and returns the files."""
    path, files = Path(cfg.run_dir) / name, []
    if cfg.format in ("png", "both"):
        files.append(save_png(drawn.image, path.with_suffix(".png")))
        if drawn.frames:
            files.append(save_gif(drawn.frames, path.with_suffix(".gif"), cfg.frame_ms, cfg.frame_ms))
    if cfg.format in ("npz", "both"):
        files.append(path.with_suffix(".npz"))
        write_npz({**drawn.arrays, "seed": cfg.seed}, files[-1])
    console.print_line(f"{name}: {', '.join(console.short_path(file) for file in files)}")
    return files


def generate(cfg: DictConfig) -> list[Path]:
    """Draws the chosen kinds of images, and writes them as PNG, animations as GIF, and their arrays as NPZ.

    Each kind starts from the same seed, so it does not depend on the others.

    Args:
        cfg: as ``configs/generate.yaml`` composes it.

    Returns:
        The files.

    Raises:
        UserError: there is no such checkpoint, kind, image or file, or a setting is invalid.
    """
    return generate_checked(cfg, check_generation(cfg))


@torch.no_grad()
def generate_checked(cfg: DictConfig, wanted: list[str]) -> list[Path]:
    """Draws as :func:`generate` does, with settings that are checked already and the chosen kinds of images."""
    files = []
    with evaluation_seed(torch.device("cpu")):
        model = TrainedModel.load(cfg.run, cfg.data_dir, cfg.limit)
        model.chosen = _chosen_images(cfg, model)
        for name in wanted:
            torch.manual_seed(cfg.seed)
            options = OmegaConf.to_container(cfg.pictures[name], resolve=True)
            try:
                drawn = instantiate(options, _convert_="all")(model)
            except NotApplicable as reason:
                if cfg.what != "all":
                    raise UserError(f"what={name}: {reason}") from reason
                console.print_line(f"[dim]no {name}: {escape(str(reason))}[/dim]")
                continue
            files += _write(drawn, name, cfg)
    return files
