"""The test figures of a trained model, from its checkpoint alone: what ``evaluate.py`` runs."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig

from vaelab import checkpoint, reporting


def _same_precision(config: dict[str, Any]) -> dict[str, Any]:
    precision = config["trainer"]["precision"]
    if str(precision).startswith("16") and not torch.cuda.is_available():
        precision = "32-true"  # float16 is for GPUs
    return {"accelerator": "auto", "devices": 1, "precision": precision}


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Tests a checkpoint as the end of its training did, prints the figures and stores them in ``evaluation.json``.

    The latent samples are drawn from the same seed, so that on the same kind of device and in the same precision the
    figures are the same.

    Args:
        cfg: what ``configs/evaluate.yaml`` composes.

    Returns:
        The figures, as stored.

    Raises:
        UserError: there is no such checkpoint, or it is no checkpoint of this project.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    path = checkpoint.find(cfg.run)
    module, config = checkpoint.rebuild(path)
    datamodule = checkpoint.rebuild_data(config, path, cfg.data_dir)
    trainer = L.Trainer(
        **(cfg.trainer or _same_precision(config)),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    tested = trainer.test(module, datamodule, verbose=False)[0]
    normalized = module.vae.likelihood.is_normalized(datamodule.is_binary)
    figures: dict[str, Any] = {
        **{name: float(value) for name, value in tested.items()},
        "unit": reporting.unit(normalized),
        "data": f"{datamodule.source.name}, test split, {len(datamodule.splits['test'].images)} images",
        "binarize": datamodule.binarization,
        "precision": str(trainer.precision),
        "checkpoint": str(path.resolve()),
    }
    run_dir = Path(cfg.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    reporting.write_json(figures, run_dir / "evaluation.json")
    reporting.print_figures(reporting.shown_path(path), figures, normalized)
    reporting.say(f"written to {reporting.shown_path(run_dir / 'evaluation.json')}")
    return figures
