"""The latent space of a report: test images, their codes and their reconstructions.

They need the model, so ``latents.npz`` stores them: a report can be made again without it.
"""

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import features
from torch import Tensor

from vaelab.data.source import Images
from vaelab.models.distributions.latents import dimension_kls
from vaelab.runs.trained_model import TrainedModel, evenly_spaced
from vaelab.runtime.files import write_npz
from vaelab.visualization.plots import at_most, pca, sprite_sheet, to_bytes

Arrays = dict[str, npt.NDArray[Any]]

_LARGEST_TILE = 64  # pixels
_SHEET = 1448  # pixels along a side, approximately: two million pixels are a few hundred kilobytes
_DIMENSIONS = 12  # with an axis of their own: those whose means vary most


@torch.no_grad()
def gather(model: TrainedModel, limit: int) -> Arrays:
    """The latent space of test images, as plain arrays.

    Args:
        model: a model with its images.
        limit: number of test images, evenly spaced; fewer if they are large.

    Returns:
        - ``numbers`` (N,) of the images in their split, ``labels`` (N,), ``classes``: their names.
        - ``factors`` (N, F) and ``factor_names``, if they are known.
        - ``axes`` (A,): names; ``positions`` (N, A): coordinates along them.
        - ``errors`` (N,): mean squared errors per pixel.
        - ``images`` and ``reconstructions``: bytes of sprite sheets with ``columns`` tiles in a row, each of size
          ``tile``, (height, width).
        - ``kls`` (D,) in nats, if they have a closed form; ``variances`` (D,) of the posterior means.
        - ``of``: the protocol, which names the images.
    """
    source = model.datamodule.source
    height, width = model.vae.image_shape[1:]
    shrink = min(1.0, _LARGEST_TILE / max(height, width))
    tile = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    limit = max(1, min(limit, _SHEET**2 // (tile[0] * tile[1])))
    shown = model.images("test", limit)
    codes = _encoded(model, shown)
    columns = math.ceil(math.sqrt(len(codes.means) * tile[0] / tile[1]))
    names, positions = _axes(codes.means, codes.log_variances, shown.labels, source.classes)
    arrays: Arrays = {
        "numbers": evenly_spaced(len(model.splits["test"].images), limit).numpy(),
        "labels": shown.labels.numpy(),
        "classes": np.array(source.classes, dtype=str),
        "errors": codes.errors.numpy(),
        "variances": codes.means.var(0, correction=0).numpy(),
        "tile": np.array(tile),
        "columns": np.array(columns),
        "images": _sheet(codes.images, columns, exact=model.vae.image_shape[0] < 3),
        "reconstructions": _sheet(codes.reconstructions, columns, exact=False),
        "of": np.array(model.protocol("test", len(codes.means))),
    }
    if codes.kls is not None:
        arrays["kls"] = codes.kls.numpy()
    if shown.factors is not None:
        arrays["factors"] = shown.factors.numpy()
        arrays["factor_names"] = np.array(getattr(source, "factor_names", ()), dtype=str)
    return {**arrays, "axes": np.array(names), "positions": positions.numpy().astype(np.float32)}


class _Codes(NamedTuple):
    """Posteriors and reconstructions of N images.

    Attributes:
        means: (N, D).
        log_variances: (N, D), or ``None`` if the posterior has no trained variance.
        kls: (D,), means over images in nats, or ``None`` if they have no closed form.
        errors: (N,), mean squared errors per pixel.
        images, reconstructions: uint8 (N, C, H, W), shrunk to the size of a tile.
    """

    means: Tensor
    log_variances: Tensor | None
    kls: Tensor | None
    errors: Tensor
    images: Tensor
    reconstructions: Tensor


def _encoded(model: TrainedModel, shown: Images) -> _Codes:
    """Encodes and decodes batch by batch, because large images may not fit into memory together."""
    batches = []
    p_z = model.vae.p_z()
    for x, y, q_z in model.posteriors(shown):
        reconstructions = model.vae.decode(q_z.centre, y).mean.float()
        errors = (reconstructions - x).square().flatten(1).mean(1).cpu()
        tiles = [to_bytes(at_most(images, _LARGEST_TILE)).cpu() for images in (x, reconstructions)]
        log_variances = model.log_variance(q_z)
        batches.append((q_z.centre.float().cpu(), log_variances, dimension_kls(q_z, p_z), errors, *tiles))
    means, log_variances, kls, errors, originals, decoded = map(_joined, zip(*batches, strict=True))
    return _Codes(means, log_variances, None if kls is None else kls.mean(0).float().cpu(), errors, originals, decoded)


def _joined(parts: Sequence[Tensor | None]) -> Any:
    """The parts as one tensor, or ``None`` if there are none."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def _axes(
    means: Tensor, log_variances: Tensor | None, labels: Tensor, classes: tuple[str, ...]
) -> tuple[list[str], Tensor]:
    """Names and coordinates (N, A) of the axes of a scatter plot; the two most informative axes are first."""
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
    """The bytes of a sprite sheet of tiles (N, C, H, W), uint8; lossless compression of smooth tiles triples them."""
    sheet, file = sprite_sheet(tiles, columns), io.BytesIO()
    if not features.check("webp"):
        sheet.save(file, "PNG")
    else:
        sheet.save(file, "WEBP", lossless=exact, quality=0 if exact else 75, method=2)
    return np.frombuffer(file.getvalue(), np.uint8)


def write(model: TrainedModel, path: Path, limit: int = 2000) -> None:
    """Writes the arrays of :func:`gather`, completely or not at all.

    It deletes an older file first, which would otherwise remain after an error and belong to other weights.
    """
    path.unlink(missing_ok=True)
    write_npz(gather(model, limit), path, compressed=False)


def read(path: Path) -> Arrays:
    """The arrays that :func:`write` wrote.

    Raises:
        ValueError: the file is compressed: a small file could unpack to more numbers than the machine has memory.
    """
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError(f"{path.name} is compressed")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
