"""Pictures from a trained model, from its checkpoint alone: what ``generate.py`` runs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.markup import escape
from torch import Tensor

from vaelab import reporting
from vaelab.data.picture_files import read_image
from vaelab.data.source import Images
from vaelab.errors import UserError
from vaelab.figures import save_gif, save_png
from vaelab.module import evaluation_noise
from vaelab.pictures import CannotDraw, Drawn
from vaelab.subject import Chosen, Subject

_LONGEST_NAME = 24  # that fits beside a picture
# How much nearer to the model's pictures in brightness a negative must be for it to be proposed; black is 0, white 1.
_MARKEDLY = 0.2


def _check(cfg: DictConfig) -> list[str]:
    """Refuses impossible settings; the pictures that are wanted."""
    least = dict.fromkeys(("count", "scale", "per_class", "dimensions"), 1)
    least |= {"limit": 2, "steps": 2, "frames": 2, "frame_ms": 10}
    options = [("", cfg), *((f"pictures.{name}.", cfg.pictures[name]) for name in cfg.pictures)]
    for key, value in ((prefix + key, values[key]) for prefix, values in options for key in least if key in values):
        smallest = least[key.rpartition(".")[2]]
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            raise UserError(f"{key}={value}: it must be an integer of at least {smallest}")
    for key, value in (("temperature", cfg.temperature), ("pictures.traversal.reach", cfg.pictures.traversal.reach)):
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
            raise UserError(f"{key}={value}: it must be a number of at least 0")
    if cfg.format not in ("png", "npz", "both"):
        raise UserError(f"format={cfg.format}: choose from png (and GIF), npz (the numbers), both")
    for number in _listed(cfg.images):
        if not isinstance(number, int) or isinstance(number, bool):
            raise UserError(f"images={number}: test images are chosen by number, from 0: type e.g. images=[3,17]")
    for file in _listed(cfg.files):
        if not Path(str(file)).expanduser().is_file():
            raise UserError(f"files={file}: there is no such file")
    if not isinstance(cfg.invert, bool) or (cfg.invert and not _listed(cfg.files)):
        raise UserError(f"invert={cfg.invert}: true or false, for images that files=... names")
    wanted = list(cfg.pictures) if cfg.what == "all" else _listed(cfg.what)
    for name in wanted:
        if name not in cfg.pictures:
            raise UserError(f"what={name}: no such picture; choose from all, {', '.join(cfg.pictures)}, or what=[a,b]")
    return wanted


def _listed(value: Any) -> list[Any]:
    """One or several values, as a list."""
    return [] if value is None else list(value) if isinstance(value, ListConfig) else [value]


def _choose(cfg: DictConfig, subject: Subject) -> Chosen | None:
    """The test images and the files that were named, if any were."""
    numbers, files, labels = _listed(cfg.images), _listed(cfg.files), _listed(cfg.labels)
    parts = [subject.numbered(numbers)] if numbers else []
    if files or labels:
        parts.append(_from_files(files, _labels(labels, len(files), subject), cfg.invert, subject))
    if not parts:
        return None
    images, of = zip(*((part.images.images, part.images.labels) for part in parts), strict=True)
    return Chosen(Images(torch.cat(images), torch.cat(of)), [name for part in parts for name in part.names])


def _labels(labels: list[Any], count: int, subject: Subject) -> Tensor:
    """The classes that were typed for files, by number or name."""
    if subject.vae.classes is None:
        if labels:
            raise UserError(f"labels={labels}: this model is told no class")
        return torch.zeros(count, dtype=torch.int64)
    if len(labels) != count:
        raise UserError(
            f"this model is told the class of each image, and there are {len(labels)} labels for {count} files: "
            "type e.g. labels=[3,5]"
        )
    numbers = []
    for label in labels:
        number = label
        if not isinstance(label, int):
            number = subject.classes.index(label) if label in subject.classes else -1
        if not 0 <= number < subject.vae.classes:
            raise UserError(f"labels={label}: no such class; choose from 0 to {subject.vae.classes - 1}, or by name")
        numbers.append(number)
    return torch.tensor(numbers, dtype=torch.int64)


def _from_files(files: list[Any], labels: Tensor, invert: bool, subject: Subject) -> Chosen:
    """Images of any size and kind, made such as the model knows; what was done to each is said."""
    channels = subject.vae.image_shape[0]
    if channels not in (1, 3):
        raise UserError(f"files=...: the model's images have {channels} channels, and those of files one or three")
    usual = float(subject.decode(subject.vae.draw(64), subject.vae.classes_in_turn(64)).mean())
    images, names = [], []
    for file in files:
        path = Path(str(file)).expanduser()
        array, done = read_image(path, subject.vae.image_shape)
        if invert:
            array, done = 255 - array, [*done, "inverted"]
        mean = array.mean() / 255
        if subject.datamodule.is_binary:
            array, done = np.where(array > 127, np.uint8(255), np.uint8(0)), [*done, "cut at one half"]
        reporting.say(f"{escape(str(file))}: {', '.join(done) or 'as it is'}")
        if abs(mean - usual) - abs(1 - mean - usual) > _MARKEDLY:
            kind, other = ("light", "dark") if mean > usual else ("dark", "light")
            hint = "invert=false" if invert else "invert=true"
            reporting.say(f"[dim]{escape(path.name)} is {kind}, and this model's pictures are {other}: {hint}?[/dim]")
        images.append(torch.tensor(array))
        name = path.name
        half = _LONGEST_NAME // 2
        names.append(name if len(name) <= _LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}")
    return Chosen(Images(torch.stack(images), labels), names)


def save_npz(arrays: Mapping[str, Any], path: Path) -> Path:
    """Writes arrays, whole or not at all, and returns the path of their file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    plain = {name: value.cpu().numpy() if isinstance(value, Tensor) else value for name, value in arrays.items()}
    with partial.open("wb") as file:
        np.savez_compressed(file, **plain)  # type: ignore[arg-type]  # its stub takes them for allow_pickle
    os.replace(partial, path)
    return path


def _keep(drawn: Drawn, name: str, cfg: DictConfig) -> list[Path]:
    """The files of one picture."""
    path, files = Path(cfg.run_dir) / name, []
    if cfg.format in ("png", "both"):
        files.append(save_png(drawn.picture, path.with_suffix(".png")))
        if drawn.frames:
            files.append(save_gif(drawn.frames, path.with_suffix(".gif"), cfg.frame_ms, cfg.frame_ms))
    if cfg.format in ("npz", "both"):
        files.append(save_npz({**drawn.arrays, "seed": cfg.seed}, path.with_suffix(".npz")))
    reporting.say(f"{name}: {', '.join(reporting.shown_path(file) for file in files)}")
    return files


@torch.no_grad()
def generate(cfg: DictConfig) -> list[Path]:
    """Draws the pictures asked for and writes them as PNG, as GIF where they move, and their numbers as NPZ.

    Every picture draws from the same seed, so that it comes to the same with and without the others.

    Args:
        cfg: what ``configs/generate.yaml`` composes.

    Returns:
        The files.

    Raises:
        UserError: there is no such checkpoint, picture, image or file, or a setting is impossible.
    """
    wanted = _check(cfg)
    files = []
    with evaluation_noise(torch.device("cpu")):
        subject = Subject.load(cfg.run, cfg.data_dir, cfg.limit)
        subject.chosen = _choose(cfg, subject)
        for name in wanted:
            torch.manual_seed(cfg.seed)
            options = OmegaConf.to_container(cfg.pictures[name], resolve=True)
            try:
                drawn = instantiate(options, _convert_="all")(subject)
            except CannotDraw as reason:
                if cfg.what != "all":
                    raise UserError(f"what={name}: {reason}") from reason
                reporting.say(f"[dim]no {name}: {escape(str(reason))}[/dim]")
                continue
            files += _keep(drawn, name, cfg)
    return files
