"""The charts of latent space, errors and scores on the page of a run."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.models.distributions.latents import ACTIVE_VARIANCE
from vaelab.runs.foreign_files import LARGEST_CSV, lies_in, read_bytes
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.plots.style import PALETTE
from vaelab.visualization.report import latent_space
from vaelab.visualization.report.images import ReportFolder, sheet_uri
from vaelab.visualization.report.page import Block, Section, plot, section

_BINS = 48


def latent_section(folder: ReportFolder) -> Section:
    """The section of latent space: codes of test images, KL divergence of each dimension, images."""
    path = folder.latents_file
    arrays: dict[str, Any] = {}

    def scatter() -> list[Block]:
        if not lies_in(path, folder.path):
            raise NotApplicable("There is no latents.npz, which this chart needs: callbacks.latents writes it.")
        arrays.update(latent_space.read(path))
        blocks = [_scatter(arrays)]
        folder.image_sections.replace("scatter")
        return blocks

    def bars() -> list[Block]:
        measured = folder.evaluation.get("arrays", {})
        is_measured = "latents/dimension_kls" in measured
        kls = measured.get("latents/dimension_kls", arrays["kls"].tolist() if "kls" in arrays else None)
        variances = measured.get("latents/mean_variances", arrays.get("variances"))
        if kls is None:
            raise NotApplicable("The KL of single dimensions has no closed form here." if arrays or measured else "")
        folder.image_sections.replace("kls")
        return [_bars(kls, variances, "" if is_measured else str(arrays["of"]))]

    return section("latents", "Latent space", scatter, bars, lambda: folder.image_sections.blocks("latents"))


def _scatter(arrays: Mapping[str, Any]) -> Block:
    classes = [str(name) for name in arrays["classes"]]
    colours: list[dict[str, Any]] = []
    if len(classes) > 1:
        labels = arrays["labels"].tolist()
        colours.append({"name": "class", "classes": classes, "values": labels, "palette": PALETTE})
    for name, column in zip(
        arrays.get("factor_names", ()), arrays["factors"].T if "factors" in arrays else (), strict=False
    ):
        colours.append({"name": str(name).replace("_", " "), "values": _rounded(column)})
    colours.append({"name": "reconstruction error", "values": _rounded(arrays["errors"])})
    names = [str(name) for name in arrays["axes"]]
    data = {
        "axes": [
            {"name": name, "values": _rounded(column)}
            for name, column in zip(names, arrays["positions"].T, strict=True)
        ],
        "colours": colours,
        "numbers": arrays["numbers"].tolist(),
        "errors": _rounded(arrays["errors"]),
        "tile": arrays["tile"].tolist(),
        "columns": int(arrays["columns"]),
        "images": sheet_uri(arrays["images"]),
        "reconstructions": sheet_uri(arrays["reconstructions"]),
    }
    caption = f"Posterior means of {arrays['of']}. Point at a mean, or tap it, to see the image and its reconstruction."
    return plot("scatter", "Latent codes of test images", data, caption)


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]


def _bars(kls: Sequence[float], variances: Any, of: str) -> Block:
    """The KL divergence of each dimension, in descending order.

    Args:
        kls: of each dimension, in nats.
        variances: of the posterior means of each dimension, or ``None``.
        of: the images, if they are not those of the metrics; else empty.
    """
    spread = None if variances is None else [float(value) for value in variances]
    rows = []
    for i in sorted(range(len(kls)), key=lambda i: -kls[i]):
        text = f"z{i + 1}: {kls[i]:.3f} nats"
        text += "" if spread is None else f", variance of the means {spread[i]:.3g}"
        strong = spread is None or spread[i] > ACTIVE_VARIANCE
        rows.append({"name": str(i + 1), "value": float(f"{kls[i]:.5g}"), "strong": strong, "text": text})
    data = {"bars": rows, "x": "latent dimension", "y": "KL divergence (nats)"}
    caption = f"{sum(kls):.2f} nats in {len(kls)} dimensions."
    if spread is not None:
        active = sum(value > ACTIVE_VARIANCE for value in spread)
        caption = f"{caption[:-1]}, {active} of them active: their means have a variance above {ACTIVE_VARIANCE}."
    if of:
        caption = f"{caption[:-1]}; on {of}."
    return plot("bars", "KL divergence of each latent dimension", data, caption)


def scores(path: Path) -> list[Block]:
    """The distribution of scores of test images, and of images of another data set."""
    found = {}
    for name, title in (("scores.csv", "test images"), ("scores_against.csv", "the other data set")):
        if lies_in(path / name, path):
            text = read_bytes(path / name, LARGEST_CSV).decode()
            values = [float(row["score"]) for row in csv.DictReader(io.StringIO(text, newline=""))]
            found[title] = [value for value in values if math.isfinite(value)]
    found = {title: values for title, values in found.items() if values}
    if not found:
        return []
    title = "Scores of single images"
    return [plot("histogram", title, _histogram(found, "bound on log p(x) per image"))]


def errors(folder: ReportFolder) -> list[Block]:
    """The distribution of reconstruction errors."""
    if not lies_in(folder.latents_file, folder.path):
        return []  # the section of latent space has a note
    arrays = latent_space.read(folder.latents_file)
    values = arrays["errors"].astype(float)
    folder.image_sections.replace("errors")
    caption = f"Mean {values.mean():.3g}, median {np.median(values):.3g}; on {arrays['of']}."
    data = _histogram({"images": values.tolist()}, "mean squared error per pixel (black 0, white 1)")
    return [plot("histogram", "Reconstruction errors", data, caption)]


def _histogram(found: Mapping[str, Sequence[float]], of: str) -> dict[str, Any]:
    """Relative frequencies in bins that all series share."""
    low, high = min(map(min, found.values())), max(map(max, found.values()))
    width = (high - low) / _BINS or 1.0
    series = []
    for (title, values), colour in zip(found.items(), (PALETTE[0], PALETTE[6]), strict=False):
        counts = [0] * _BINS
        for value in values:
            counts[min(_BINS - 1, int((value - low) / width))] += 1
        shares = [float(f"{count / len(values):.5g}") for count in counts]
        series.append({"name": f"{title} ({len(values):,})", "colour": colour, "values": shares})
    return {"low": low, "width": width, "series": series, "x": of, "y": "share of images"}
