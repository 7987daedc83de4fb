"""The content of the explorer page, and its HTML.

The page is one file. It contains the decoder as a graph with weights (see
:mod:`vaelab.visualization.explorer.graph`), test images with their codes, and samples of the prior. Its script computes
the rest.
"""

import base64
import html
import io
import json
import math
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.models.distributions.latents import dimension_kls
from vaelab.models.vae import VAE
from vaelab.runs.trained_model import TrainedModel, evenly_spaced
from vaelab.runtime.errors import UserError
from vaelab.visualization.explorer.graph import trace
from vaelab.visualization.plots.grids import sprite_sheet
from vaelab.visualization.plots.latent_paths import principal_axes
from vaelab.visualization.plots.style import PALETTE

_SPRITE_PIXELS = 6_000_000  # of all test images together; larger images are shrunk
_KL_IMAGES = 500  # test images to compute the KL divergence of each dimension with
_CHOICES = ("data", "model", "loss", "prior", "posterior", "objective")


@torch.no_grad()
def contents(path: Path, images: int, draws: int, seed: int, data_dir: str | None = None) -> dict[str, Any]:
    """The content of a checkpoint's page, as JSON; arrays are float32, little-endian, in base 64.

    Args:
        path: the checkpoint.
        images: number of test images.
        draws: number of latents from the prior.
        seed: of these latents.
        data_dir: folder of the data set's files, if they have moved.
    """
    model = TrainedModel.load(path, data_dir)
    vae = model.vae
    graph = trace(vae)
    torch.manual_seed(seed)
    p_z = vae.p_z()
    samples = p_z.sample(torch.Size((draws,)))
    try:
        centre = p_z.centre.tolist()
    except NotImplementedError:
        centre = None
    choices = model.choices
    facts = [(name, str(choices[name])) for name in _CHOICES if choices.get(name) is not None]
    folder = path if model.run is None else model.run.path
    name = choices.get("experiment") or f"{choices.get('model', 'a model')} on {choices.get('data', 'images')}"
    prior = {"draws": _packed(samples), "centre": centre, "name": choices.get("prior") or type(vae.prior).__name__}
    return {
        "title": name,
        "facts": [*facts, ("latent_dim", str(vae.latent_dim)), ("run", folder.name)],
        "graph": graph.as_json(),
        "weights": _packed(torch.from_numpy(graph.weights)),
        "latentDim": vae.latent_dim,
        "conditional": vae.classes is not None,
        "palette": PALETTE,
        "prior": prior,
        **(_with_images(model, images) if images else _without_images(vae, samples)),
    }


def _without_images(vae: VAE, samples: Tensor) -> dict[str, Any]:
    """The map of a page without test images: samples of the prior."""
    return {
        "classes": [str(label) for label in range(vae.classes or 1)],
        "points": {"count": 0, "codes": "", "labels": [], "side": list(vae.image_shape[1:])},
        "plane": _plane(samples),
        "order": list(range(vae.latent_dim)),
        "variance": None,
        "kl": None,
        "classMeans": None,
        "attributes": [],
    }


def _with_images(model: TrainedModel, images: int) -> dict[str, Any]:
    """The map of a page with test images: their codes, and metrics and directions computed from these."""
    try:
        whole = model.splits["test"]
    except UserError as error:
        raise UserError(f"{error}; or images=0 to explore without test images") from error
    shown = model.images("test", images)
    codes = model.codes(shown)
    if len(codes) < 2:
        raise UserError("there is one test image, and the map needs two: type images=0 to explore without test images")
    vae = model.vae
    kls = dimension_kls(model.posterior(model.images("test", _KL_IMAGES)), vae.p_z())
    variance = codes.var(0)
    attributes = []
    for name, values in zip(model.factor_names, () if shown.factors is None else shown.factors.T, strict=False):
        middle = values.quantile(0.5)  # torch's median of an even number is one of the values
        high, low = values > middle, values < middle
        if high.any() and low.any():
            attributes.append({"name": name, "direction": (codes[high].mean(0) - codes[low].mean(0)).tolist()})
    return {
        "classes": model.classes or ("",),
        "points": {
            "count": len(codes),
            "codes": _packed(codes),
            "labels": shown.labels.tolist(),
            "numbers": evenly_spaced(len(whole.images), images).tolist(),
            **_sprite(shown.images),
        },
        "plane": _plane(codes),
        "order": variance.argsort(descending=True).tolist(),
        "variance": variance.tolist(),
        "kl": None if kls is None else kls.mean(0).tolist(),
        # The code of a conditional model does not contain the class.
        "classMeans": None if vae.classes is not None else _class_means(codes, shown.labels, len(model.classes)),
        "attributes": attributes,
    }


def _class_means(codes: Tensor, labels: Tensor, classes: int) -> list[list[float] | None] | None:
    """The mean code of each class, or ``None`` for a class without images; ``None`` if fewer than two have images."""
    if len(labels.unique()) < 2:
        return None
    by_class = [codes[labels == label] for label in range(classes)]
    return [part.mean(0).tolist() if len(part) else None for part in by_class]


def _plane(points: Tensor) -> dict[str, Any]:
    """The axes of the map: the latent dimensions if there are at most two, else two principal axes of the points."""
    dims = points.shape[1]
    if dims <= 2:
        mean, axes = torch.zeros(dims), torch.eye(dims)
        names = [f"z[{dim}]" for dim in range(dims)]
    else:
        mean, axes, shares = principal_axes(points)
        names = [f"PC {i}, {share:.0%} of the variance" for i, share in enumerate(shares.tolist(), 1)]
    return {"mean": mean.tolist(), "axes": axes.tolist(), "names": names}


def _sprite(images: Tensor) -> dict[str, Any]:
    """Images (N, C, H, W) as one PNG in base 64, with the size of an image and the number of columns."""
    count, channels, height, width = images.shape
    if channels not in (1, 3):  # the page shows one channel of such a decoded image, too
        images = images[:, :1]
    shrink = math.ceil(math.sqrt(count * height * width / _SPRITE_PIXELS))
    if shrink > 1:
        means = torch.nn.functional.avg_pool2d(images.float(), shrink, ceil_mode=True)
        images = means.round().to(torch.uint8)
        height, width = images.shape[2:]
    columns = math.ceil(math.sqrt(count))
    file = io.BytesIO()
    sprite_sheet(images, columns).save(file, format="PNG", optimize=True)
    return {"sprite": base64.b64encode(file.getvalue()).decode(), "side": [height, width], "columns": columns}


def _packed(values: Tensor) -> str:
    """Floats as base 64 of float32, little-endian."""
    return base64.b64encode(np.ascontiguousarray(values.numpy(), "<f4").tobytes()).decode()


def render(page: dict[str, Any]) -> str:
    """The page as HTML, in one file."""
    folder = resources.files("vaelab.visualization.explorer")
    parts = {name: (folder / name).read_text("utf-8") for name in ("explorer.css", "decoder.js", "explorer.js")}
    parts["colours.css"] = (resources.files("vaelab.visualization") / "colours.css").read_text("utf-8")
    parts["title"] = html.escape(f"{page['title']}: latent space")
    # No string in the JSON can end the script element.
    parts["data"] = json.dumps(page, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return re.sub(r"\{\{([\w.]+)\}\}", lambda found: parts[found[1]], (folder / "explorer.html").read_text("utf-8"))
