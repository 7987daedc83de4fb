"""Curves of metrics over the steps, from ``metrics.csv``."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaelab.runs.foreign_files import LARGEST_CSV, lies_in
from vaelab.runs.metrics import term_unit
from vaelab.runs.metrics_csv import read_rows
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.plots.style import PALETTE, SPLIT_COLOURS
from vaelab.visualization.report.page import Block, plot

_MOST_POINTS = 1500  # of a curve; more are not visible, and would make the page large
_FIRST = ("elbo", "loss", "reconstruction", "kl", "bits_per_dim")
_TITLES = {"elbo": "ELBO", "kl": "KL", "bits_per_dim": "bits per dimension", "lr": "learning rate"}
_SPLITS = {"train": "training", "val": "validation"}

Curve = tuple[list[int], list[float]]  # steps, values


def read(path: Path) -> dict[str, Curve]:
    """The finite values of each metric, over the number of steps after which it was logged.

    Raises:
        NotApplicable: there is no such file.
    """
    if not lies_in(path, path.parent):
        raise NotApplicable(f"There is no {path.name}: logger=many or logger=csv writes it.")
    curves: dict[str, Curve] = {}
    for row in read_rows(path, LARGEST_CSV):
        for name, text in row.items():
            try:
                value = float(text)
            except (TypeError, ValueError):
                continue
            if name not in ("epoch", "step") and math.isfinite(value):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(int(row["step"]) + 1)
                values.append(float(f"{value:.6g}"))
    return {name: _thinned(curve) for name, curve in curves.items()}


def _thinned(curve: Curve) -> Curve:
    """Every n-th point of a curve, and its last one."""
    stride = math.ceil(len(curve[0]) / _MOST_POINTS)
    last = len(curve[0]) - 1
    indices = [i for i in range(len(curve[0])) if i % stride == 0 or i == last]
    return [curve[0][i] for i in indices], [curve[1][i] for i in indices]


def title_of(term: str) -> str:
    """The heading of a term."""
    return _TITLES.get(term, term.replace("_", " "))


def of_run(path: Path, metrics: Mapping[str, Any]) -> list[Block]:
    """A panel for each term, with its training and validation curves.

    Args:
        path: of ``metrics.csv``.
        metrics: of ``metrics.json``; empty if the run has not ended.
    """
    curves = read(path)
    terms: dict[str, dict[str, Curve]] = {}
    for name, curve in curves.items():
        split, _, term = name.partition("/")
        if split in _SPLITS and len(curve[0]) > 1:
            terms.setdefault(term, {})[split] = curve
    if "lr" in curves and len(set(curves["lr"][1])) > 1:
        terms["lr"] = {"train": curves["lr"]}
    if not terms:
        raise NotApplicable(f"{path.name} holds no curves: a curve needs two values.")
    order = sorted(terms, key=lambda term: (_FIRST.index(term) if term in _FIRST else len(_FIRST), term == "lr"))
    panels = [
        {
            "term": term,
            "title": title_of(term),
            "unit": _unit(term, metrics),
            "hidden": term == "loss" and _is_mirrored(terms),
            "series": [
                _series(_SPLITS[split], SPLIT_COLOURS[split], terms[term][split])
                for split in _SPLITS
                if split in terms[term]
            ],
        }
        for term in order
    ]
    per_epoch = metrics["steps"] / metrics["epochs"] if metrics.get("epochs") and metrics.get("steps") else None
    return [plot("curves", "", {"panels": panels, "stepsPerEpoch": per_epoch})]


def _series(name: str, colour: str, curve: Curve) -> dict[str, Any]:
    return {"name": name, "colour": colour, "x": curve[0], "y": curve[1]}


def _is_mirrored(terms: Mapping[str, Mapping[str, Curve]]) -> bool:
    """Whether the loss is minus the ELBO."""
    pairs = zip(terms["loss"].get("train", ([], []))[1], terms.get("elbo", {}).get("train", ([], []))[1], strict=False)
    differences = [abs(loss + elbo) <= 1e-4 * abs(elbo) for loss, elbo in pairs]
    return bool(differences) and all(differences)


def _unit(term: str, metrics: Mapping[str, Any]) -> str:
    if term == "lr" or "unit" not in metrics:
        return ""
    unit = term_unit(f"val/{term}", metrics["unit"])
    return f"{unit} per image" if unit and unit != "bits/dim" else unit


def of_several(paths: Mapping[str, Path], terms: Sequence[str], unit: str) -> list[Block]:
    """A panel for each term, with a curve for each run.

    Args:
        paths: name of a run to its ``metrics.csv``.
        terms: as logged, such as ``val/elbo``.
        unit: of the terms.
    """
    runs = {}
    for name, path in paths.items():
        try:
            runs[name] = read(path)
        except NotApplicable:
            continue
    panels = []
    for term in terms:
        series = [
            _series(name, PALETTE[i % len(PALETTE)], curves[term])
            for i, (name, curves) in enumerate(runs.items())
            if len(curves.get(term, ([],))[0]) > 1
        ]
        if series:
            split, _, short = term.partition("/")
            title, of = f"{title_of(short)}, {_SPLITS.get(split, split)}", term_unit(term, unit)
            per_image = f"{of} per image" if of else ""
            panels.append({"term": term, "title": title, "unit": per_image, "hidden": False, "series": series})
    if not panels:
        raise NotApplicable("There are no curves: no job has written a metrics.csv with two values of one metric.")
    return [plot("curves", "", {"panels": panels, "stepsPerEpoch": None})]
