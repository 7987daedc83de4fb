"""Pictures from a trained model, from its checkpoint alone: what ``generate.py`` runs."""

from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from vaelab import reporting
from vaelab.errors import UserError
from vaelab.figures import save_png
from vaelab.module import evaluation_noise
from vaelab.subject import Subject


def _check(cfg: DictConfig) -> list[str]:
    """Refuses impossible settings; the pictures that are wanted."""
    for name, least in (("count", 1), ("steps", 2), ("scale", 1), ("limit", 1)):
        if not isinstance(cfg[name], int) or cfg[name] < least:
            raise UserError(f"{name}={cfg[name]}: it must be an integer of at least {least}")
    wanted = [cfg.what] if isinstance(cfg.what, str) else list(cfg.what)
    for name in wanted:
        if name not in cfg.pictures:
            raise UserError(
                f"what={name}: no such picture; choose from {', '.join(cfg.pictures)}, or what=[samples,...]"
            )
    return wanted


@torch.no_grad()
def generate(cfg: DictConfig) -> list[Path]:
    """Draws the pictures asked for and writes them as PNG.

    Args:
        cfg: what ``configs/generate.yaml`` composes.

    Returns:
        The files.

    Raises:
        UserError: there is no such checkpoint or picture, or a number is impossible.
    """
    wanted = _check(cfg)
    files = []
    with evaluation_noise(torch.device("cpu")):
        subject = Subject.load(cfg.run, cfg.data_dir, cfg.limit)
        for name in wanted:
            torch.manual_seed(cfg.seed)
            drawn = instantiate(cfg.pictures[name], _convert_="all")(subject)
            files.append(save_png(drawn.picture, Path(cfg.run_dir) / f"{name}.png"))
            reporting.say(f"{name}: {reporting.shown_path(files[-1])}")
    return files
