"""Pictures from a trained model, from its checkpoint alone: what ``generate.py`` runs."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor

from vaelab import checkpoint, reporting
from vaelab.data.datamodule import ImageDataModule
from vaelab.errors import UserError
from vaelab.figures import Picture, compare, image_grid, reconstruction_grid, save_png
from vaelab.vae import VAE

TestImages = Callable[[], tuple[Tensor, Tensor, tuple[str, ...]]]  # with labels and classes, read when needed


def samples(vae: VAE, images: TestImages, cfg: DictConfig) -> Picture:
    """Images decoded from the prior."""
    return image_grid(vae.sample(cfg.count), scale=cfg.scale)


def reconstructions(vae: VAE, images: TestImages, cfg: DictConfig) -> Picture:
    """The first test images over their reconstructions."""
    originals, labels, _ = images()
    originals, labels = originals[: cfg.count], labels[: cfg.count]
    return reconstruction_grid(originals, vae.reconstruct(originals, labels), scale=cfg.scale)


def interpolations(vae: VAE, images: TestImages, cfg: DictConfig) -> Picture:
    """Straight ways between the latent codes of pairs of test images, a row each."""
    rows = min(cfg.count, 16)
    originals, labels, _ = images()
    if len(originals) < 2 * rows:
        raise UserError(
            f"there are {len(originals)} test images, and {rows} interpolations need {2 * rows}: type count=1"
        )
    originals, labels = originals[: 2 * rows], labels[: 2 * rows]
    ends = vae.encode(originals, labels).centre.unflatten(0, (rows, 2))  # (R, 2, latent_dim)
    way = torch.linspace(0, 1, cfg.steps).view(1, -1, 1)
    z = ends[:, :1] * (1 - way) + ends[:, 1:] * way  # (R, steps, latent_dim)
    y = None
    if vae.classes is not None:
        classes = F.one_hot(labels, vae.classes).float().unflatten(0, (rows, 2))  # (R, 2, classes)
        y = (classes[:, :1] * (1 - way) + classes[:, 1:] * way).flatten(end_dim=1)
    return image_grid(vae.decode(z.flatten(end_dim=1), y).mean, columns=cfg.steps, scale=cfg.scale)


def comparison(vae: VAE, images: TestImages, cfg: DictConfig) -> Picture:
    """Samples and latent codes of the same test images, of this model and of the one ``beside`` it."""
    if cfg.beside is None:
        raise UserError("what=comparison needs another model of the same images: type beside=<its run folder>")
    runs = {str(run): checkpoint.rebuild(checkpoint.find(run)) for run in (cfg.run, cfg.beside)}
    shapes = {module.vae.image_shape for module, _ in runs.values()}
    if len(shapes) > 1:
        raise UserError(f"beside={cfg.beside}: the two models are of images of different shapes, {sorted(shapes)}")
    objectives = [config.get("choices", {}).get("objective") for _, config in runs.values()]
    titles = objectives if len(set(objectives)) == len(runs) else list(runs)
    originals, labels, classes = images()
    drawn, codes = [], []
    for module, _ in runs.values():
        torch.manual_seed(cfg.seed)
        drawn.append(module.vae.sample(min(cfg.count, 64)))
        parts = zip(originals.split(500), labels.split(500), strict=True)
        codes.append(torch.cat([module.vae.encode(x, y).centre for x, y in parts]))
    return compare([str(title) for title in titles], drawn, codes, labels, classes)


PICTURES: dict[str, Callable[[VAE, TestImages, DictConfig], Picture]] = {
    "samples": samples,
    "reconstructions": reconstructions,
    "interpolations": interpolations,
    "comparison": comparison,
}


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
    wanted = [cfg.what] if isinstance(cfg.what, str) else list(cfg.what)
    for name in wanted:
        if name not in PICTURES:
            raise UserError(f"what={name}: no such picture; choose from {', '.join(PICTURES)}, or what=[samples,...]")
    for name, least in (("count", 1), ("steps", 2), ("scale", 1), ("images", 1)):
        if not isinstance(cfg[name], int) or cfg[name] < least:
            raise UserError(f"{name}={cfg[name]}: it must be an integer of at least {least}")
    path = checkpoint.find(cfg.run)
    module, config = checkpoint.rebuild(path)

    def images() -> tuple[Tensor, Tensor, tuple[str, ...]]:
        datamodule: ImageDataModule = checkpoint.rebuild_data(config, path, cfg.data_dir)
        datamodule.prepare_data()
        datamodule.setup()
        shown = datamodule.splits["test"].part(slice(cfg.images))
        return shown.images.float() / 255, shown.labels, datamodule.source.classes

    files = []
    for name in wanted:
        torch.manual_seed(cfg.seed)
        files.append(save_png(PICTURES[name](module.vae, images, cfg), Path(cfg.run_dir) / f"{name}.png"))
        reporting.say(f"{name}: {reporting.shown_path(files[-1])}")
    return files
