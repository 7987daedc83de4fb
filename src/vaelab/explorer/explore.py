"""A page in which one moves through a model's latent space: what ``explore.py`` runs.

The page is one file. It holds the decoder as a graph with its weights (see :mod:`vaelab.explorer.graph`), test images
with their codes, and draws from the prior, and computes everything else itself.
"""

import base64
import contextlib
import html
import io
import json
import math
import os
import re
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from vaelab import checkpoint, reporting
from vaelab.errors import UserError
from vaelab.evaluation.latents import dimension_kls
from vaelab.explorer.graph import trace
from vaelab.figures.latents import principal_axes
from vaelab.figures.style import PALETTE
from vaelab.files import write_text
from vaelab.module import evaluation_noise
from vaelab.quiet import quieten
from vaelab.subject import Subject, spaced
from vaelab.vae import VAE

_SPRITE_PIXELS = 6_000_000  # of all test images together; larger images are made smaller
_COMPARED = 500  # images whose posteriors are compared with the prior
_CHOICES = ("data", "model", "loss", "prior", "posterior", "objective")


def explore(cfg: DictConfig) -> Path:
    """Writes the page, then opens or serves it.

    Args:
        cfg: what ``configs/explore.yaml`` composes.

    Returns:
        The file.

    Raises:
        UserError: there is no such checkpoint, its data set is not found, its decoder cannot be translated, or a
            setting is impossible.
    """
    quieten()
    _check(cfg)
    path = checkpoint.find(cfg.run)
    with evaluation_noise(torch.device("cpu")):  # building a model draws weights, though others are loaded into it
        page = contents(path, cfg.images, cfg.draws, cfg.seed, cfg.data_dir)
    file = Path(cfg.run_dir) / "explorer.html"
    write_text(render(page), file)
    reporting.say(f"{reporting.shown_path(file)}: {file.stat().st_size / 1e6:.1f} MB, for any browser")
    if cfg.serve:
        _serve(file.read_bytes(), cfg.port, cfg.open)
    elif cfg.open and _has_browser():
        webbrowser.open(file.resolve().as_uri())
    return file


def _check(cfg: DictConfig) -> None:
    for name, least, most in (("images", 0, math.inf), ("draws", 1, math.inf), ("port", 0, 65535)):
        value = cfg[name]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            limit = "" if most == math.inf else f" and at most {most}"
            raise UserError(f"{name}={value}: it must be an integer of at least {least}{limit}")
    if cfg.images == 1:
        raise UserError("images=1: a map needs two images; type images=2000, or images=0 for none")
    for name in ("open", "serve"):
        if not isinstance(cfg[name], bool):
            raise UserError(f"{name}={cfg[name]}: it must be true or false")
    if not (isinstance(cfg.seed, int) and 0 <= cfg.seed < 2**32) or isinstance(cfg.seed, bool):
        raise UserError(f"seed={cfg.seed}: it must be an integer from 0 to {2**32 - 1}")


@torch.no_grad()
def contents(path: Path, images: int, draws: int, seed: int, data_dir: str | None = None) -> dict[str, Any]:
    """Everything that the page of a checkpoint shows, as JSON; arrays are float32, little-endian, in base 64.

    Args:
        path: the checkpoint.
        images: how many test images.
        draws: how many latents from the prior.
        seed: of the draws.
        data_dir: where the data set's files are now, if they have moved.
    """
    subject = Subject.load(path, data_dir)
    vae = subject.vae
    graph = trace(vae)
    torch.manual_seed(seed)
    p_z = vae.p_z()
    drawn = p_z.sample(torch.Size((draws,)))
    try:
        centre = p_z.centre.tolist()
    except NotImplementedError:
        centre = None
    choices = subject.choices
    facts = [(name, str(choices[name])) for name in _CHOICES if choices.get(name) is not None]
    folder = subject.run or path
    name = choices.get("experiment") or f"{choices.get('model', 'a model')} on {choices.get('data', 'images')}"
    prior = {"draws": _packed(drawn), "centre": centre, "name": choices.get("prior") or type(vae.prior).__name__}
    return {
        "title": name,
        "facts": [*facts, ("latent_dim", str(vae.latent_dim)), ("run", folder.name)],
        "graph": graph.as_json(),
        "weights": _packed(torch.from_numpy(graph.weights)),
        "latentDim": vae.latent_dim,
        "conditional": vae.classes is not None,
        "palette": PALETTE,
        "prior": prior,
        **(_seen(subject, images) if images else _unseen(vae, drawn)),
    }


def _unseen(vae: VAE, drawn: Tensor) -> dict[str, Any]:
    """What is known of latent space without the images: the prior."""
    return {
        "classes": [str(label) for label in range(vae.classes or 1)],
        "points": {"count": 0, "codes": "", "labels": [], "side": list(vae.image_shape[1:])},
        "plane": _plane(drawn),
        "order": list(range(vae.latent_dim)),
        "variance": None,
        "kl": None,
        "classMeans": None,
        "attributes": [],
    }


def _seen(subject: Subject, images: int) -> dict[str, Any]:
    """Test images with their codes, and what these say about latent space."""
    try:
        whole = subject.splits["test"]
    except UserError as error:
        raise UserError(f"{error}; or images=0 to explore without test images") from error
    shown = subject.images("test", images)
    codes = subject.codes(shown)
    if len(codes) < 2:
        raise UserError("there is one test image, and a map needs two: type images=0 to explore without")
    vae = subject.vae
    kls = dimension_kls(subject.posterior(subject.images("test", _COMPARED)), vae.p_z())
    variance = codes.var(0)
    attributes = []
    for name, values in zip(subject.factor_names, () if shown.factors is None else shown.factors.T, strict=False):
        high, low = values > values.median(), values < values.median()
        if high.any() and low.any():
            attributes.append({"name": name, "direction": (codes[high].mean(0) - codes[low].mean(0)).tolist()})
    return {
        "classes": subject.classes or ("",),
        "points": {
            "count": len(codes),
            "codes": _packed(codes),
            "labels": shown.labels.tolist(),
            "numbers": spaced(len(whole.images), images).tolist(),
            **_sprite(shown.images),
        },
        "plane": _plane(codes),
        "order": variance.argsort(descending=True).tolist(),
        "variance": variance.tolist(),
        "kl": None if kls is None else kls.mean(0).tolist(),
        # Of a model that is told the class it is not in the code.
        "classMeans": None if vae.classes is not None else _class_means(codes, shown.labels, len(subject.classes)),
        "attributes": attributes,
    }


def _class_means(codes: Tensor, labels: Tensor, classes: int) -> list[list[float] | None] | None:
    """The mean code of each class that there is; ``None`` where there are not two."""
    if len(labels.unique()) < 2:
        return None
    of_each = [codes[labels == label] for label in range(classes)]
    return [part.mean(0).tolist() if len(part) else None for part in of_each]


def _plane(points: Tensor) -> dict[str, Any]:
    """What the map shows: latents themselves up to two dimensions, of more their principal axes."""
    dims = points.shape[1]
    if dims <= 2:
        mean, axes = torch.zeros(dims), torch.eye(dims)
        names = [f"z[{dim}]" for dim in range(dims)]
    else:
        mean, axes, shares = principal_axes(points)
        names = [f"PC {i}, {share:.0%} of the variance" for i, share in enumerate(shares.tolist(), 1)]
    return {"mean": mean.tolist(), "axes": axes.tolist(), "names": names}


def _sprite(images: Tensor) -> dict[str, Any]:
    """Images (N, C, H, W) as one PNG, row after row, with the size of each and how many there are in a row."""
    count, channels, height, width = images.shape
    if channels not in (1, 3):  # shown as the page shows what is decoded
        images = images[:, :1]
    shrink = math.ceil(math.sqrt(count * height * width / _SPRITE_PIXELS))
    if shrink > 1:
        means = torch.nn.functional.avg_pool2d(images.float(), shrink, ceil_mode=True)
        images = means.round().to(torch.uint8)
        height, width = images.shape[2:]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = images.new_zeros(rows * columns, *images.shape[1:])
    sheet[:count] = images
    tiled = sheet.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, -1)
    file = io.BytesIO()
    Image.fromarray(tiled.squeeze(-1).numpy()).save(file, format="PNG", optimize=True)
    return {"sprite": base64.b64encode(file.getvalue()).decode(), "side": [height, width], "columns": columns}


def _packed(values: Tensor) -> str:
    return base64.b64encode(np.ascontiguousarray(values.numpy(), "<f4").tobytes()).decode()


def render(page: dict[str, Any]) -> str:
    """The page as HTML, complete in itself."""
    folder = resources.files("vaelab.explorer")
    parts = {name: (folder / name).read_text("utf-8") for name in ("explorer.css", "decoder.js", "explorer.js")}
    parts["colours.css"] = (resources.files("vaelab") / "colours.css").read_text("utf-8")
    parts["title"] = html.escape(f"{page['title']}: latent space")
    # Nothing in it ends the element that holds it.
    parts["data"] = json.dumps(page, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return re.sub(r"\{\{([\w.]+)\}\}", lambda found: parts[found[1]], (folder / "explorer.html").read_text("utf-8"))


def _has_browser() -> bool:
    """Whether there is a browser with windows: one in the terminal would not run the page."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _serve(page: bytes, port: int, is_opened: bool) -> None:
    """Answers requests from this machine with the page, until Ctrl-C."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A name that somebody else has made to mean this machine is not answered.
            host = urlsplit(f"//{self.headers.get('Host')}").hostname
            if self.path != "/" or host not in ("localhost", "127.0.0.1"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise UserError(f"port={port} cannot be had ({error.strerror}): type port=0 for any that is free") from error
    with server:
        address = f"http://localhost:{server.server_port}/"
        reporting.say(f"{address} until Ctrl-C")
        if is_opened and _has_browser():
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
