"""Trainings in this process, and what they leave."""

import csv
from pathlib import Path
from typing import Any

import torch

from tests.conftest import composed
from vaelab.commands.evaluate import evaluate
from vaelab.commands.train import train


def trained(run_dir: Path, *overrides: str) -> dict[str, Any]:
    """Trains without the gallery, which takes longer than the training, unless callbacks are chosen."""
    chosen = any(override.startswith(("callbacks=", "callbacks.gallery=")) for override in overrides)
    plain = () if chosen else ("callbacks.gallery=null",)
    return train(composed("train", f"run_dir={run_dir}", *overrides, *plain))


def retested(run_dir: Path) -> dict[str, float]:
    """The test figures again, from the checkpoint alone."""
    options = (f"run={run_dir}", f"run_dir={run_dir / 'evaluation'}", "what=[]")
    return {name: figure["value"] for name, figure in evaluate(composed("evaluate", *options))["metrics"].items()}


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
