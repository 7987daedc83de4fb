"""Latent space as a report shows it: test images, where they lie, and what becomes of them.

A model alone can tell these, so they are kept beside it in ``latents.npz``, of which a report can be made again later.
"""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, features
from torch import Tensor

from vaelab.models.distributions.latents import dimension_kls
from vaelab.runs.trained_model import TrainedModel, evenly_spaced
from vaelab.runtime.files import atomic_write
from vaelab.visualization.plots import at_most, pca, to_bytes

Arrays = dict[str, npt.NDArray[Any]]

_LARGEST_TILE = 64  # pixels
_SHEET = 1448  # pixels to a side, about: two million, which are a few hundred kilobytes
_DIMENSIONS = 12  # that can be looked at one by one: those whose means vary most


@torch.no_grad()
def gather(model: TrainedModel, limit: int) -> Arrays:
    """What is shown of latent space, in plain arrays.

    Args:
        model: a model with its images.
        limit: how many test images, evenly spaced; fewer where they are large.

    Returns:
        ``axes`` (A,), names, and ``positions`` (N, A) along them; ``numbers`` (N,) of the images in their split, their
        ``labels`` (N,) and the names ``classes``, their ``factors`` (N, F) and ``factor_names`` where these are known;
        ``errors`` (N,), mean squared ones per pixel; ``images`` and ``reconstructions``, files of one picture with
        ``columns`` tiles in a row, each of the size ``tile``, (height, width); ``kls`` (D,) in nats, where they have a
        closed form, and ``variances`` (D,) of the means; ``of``, which images these are.
    """
    test, source = model.datamodule.splits["test"], model.datamodule.source
    height, width = model.vae.image_shape[1:]
    shrink = min(1.0, _LARGEST_TILE / max(height, width))
    tile = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    limit = max(1, min(limit, _SHEET**2 // (tile[0] * tile[1])))
    shown = model.images("test", limit)
    means, log_variances, kls, errors = [], [], [], []
    originals: list[Tensor] = []
    pictures: list[Tensor] = []
    p_z = model.vae.p_z()
    for x, y in model.batches(shown):
        q_z = model.vae.encode(x, y)
        picture = model.vae.decode(q_z.centre, y).mean.float()
        means.append(q_z.centre.float().cpu())
        kls.append(dimension_kls(q_z, p_z))
        if (logs := model.log_variance(q_z)) is not None:
            log_variances.append(logs)
        errors.append((picture - x).square().flatten(1).mean(1).cpu())
        for images, tiles in ((x, originals), (picture, pictures)):
            tiles.append(to_bytes(at_most(images, _LARGEST_TILE)).cpu())
    codes = torch.cat(means)
    known = [values for values in kls if values is not None]
    columns = math.ceil(math.sqrt(len(codes) * tile[0] / tile[1]))
    arrays: Arrays = {
        "numbers": evenly_spaced(len(test.images), limit).numpy(),
        "labels": shown.labels.numpy(),
        "classes": np.array(source.classes, dtype=str),
        "errors": torch.cat(errors).numpy(),
        "variances": codes.var(0, correction=0).numpy(),
        "tile": np.array(tile),
        "columns": np.array(columns),
        "images": _sheet(torch.cat(originals), columns, exact=model.vae.image_shape[0] < 3),
        "reconstructions": _sheet(torch.cat(pictures), columns, exact=False),
        "of": np.array(model.protocol("test", len(codes))),
    }
    if len(known) == len(kls):
        arrays["kls"] = torch.cat(known).mean(0).float().cpu().numpy()
    if shown.factors is not None:
        arrays["factors"] = shown.factors.numpy()
        arrays["factor_names"] = np.array(getattr(source, "factor_names", ()), dtype=str)
    spread = torch.cat(log_variances) if log_variances else None
    names, positions = _axes(codes, spread, shown.labels, source.classes)
    return {**arrays, "axes": np.array(names), "positions": positions.numpy().astype(np.float32)}


def _axes(
    means: Tensor, log_variances: Tensor | None, labels: Tensor, classes: tuple[str, ...]
) -> tuple[list[str], Tensor]:
    """What points can be drawn along, names and columns (N, A): first the two that say most."""
    names: list[str] = []
    columns: list[Tensor] = []
    if means.shape[1] > 2 and len(means) > 2:
        points, parts = pca(means)
        names += [f"component {i + 1}, {100 * part:.0f} % of variance" for i, part in enumerate(parts.tolist())]
        columns += points.T.float()
    dimensions = list(range(means.shape[1]))
    if means.shape[1] > 2:
        dimensions = means.var(0, correction=0).argsort(descending=True)[:_DIMENSIONS].sort().values.tolist()
    names += [f"z{i + 1}" for i in dimensions]
    columns += means[:, dimensions].T
    if means.shape[1] == 1:
        names.append("class, spread out" if len(classes) > 1 else "spread out")
        columns.append(labels + 0.7 * torch.rand(len(labels), generator=torch.Generator().manual_seed(0)) - 0.35)
    if log_variances is not None and log_variances.isfinite().all():
        if means.shape[1] > 2 and len(means) > 2:
            points, _ = pca(log_variances)
            names += ["log-variances, component 1", "log-variances, component 2"]
            columns += points.T.float()
        else:
            names += [f"log-variance of z{i + 1}" for i in range(means.shape[1])]
            columns += log_variances.T
    return names, torch.stack(list(columns), 1)


def _sheet(tiles: Tensor, columns: int, exact: bool) -> npt.NDArray[np.uint8]:
    """Tiles (N, C, H, W), uint8, side by side, as the bytes of a file. Exact, what is smooth takes three times more."""
    count, channels, height, width = tiles.shape
    tiles = tiles[:, :3] if channels >= 3 else tiles[:, :1]
    rows = math.ceil(count / columns)
    atomic_write = F.pad(tiles, (0, 0, 0, 0, 0, 0, 0, rows * columns - count))
    grid = atomic_write.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, -1)
    picture = Image.fromarray(grid.squeeze(-1).numpy() if grid.shape[-1] == 1 else grid.numpy())
    file = io.BytesIO()
    if not features.check("webp"):
        picture.save(file, "PNG")
    else:
        picture.save(file, "WEBP", lossless=exact, quality=0 if exact else 75, method=2)
    return np.frombuffer(file.getvalue(), np.uint8)


def keep(model: TrainedModel, path: Path, limit: int = 2000) -> None:
    """Writes what :func:`gather` returns, whole or not at all; what was there before goes, whatever comes of it."""
    path.unlink(missing_ok=True)
    arrays = gather(model, limit)
    with atomic_write(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one of them


def read(path: Path) -> Arrays:
    """What :func:`keep` wrote."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
