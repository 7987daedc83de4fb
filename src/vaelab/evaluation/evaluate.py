"""The test figures of a trained model, from its checkpoint alone: what ``evaluate.py`` runs."""

import csv
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vaelab import checkpoint, reporting
from vaelab.data.datamodule import ImageDataModule
from vaelab.data.source import Images
from vaelab.errors import UserError
from vaelab.evaluation.scores import auroc, score_images
from vaelab.figures import labelled_grid, save_png
from vaelab.quiet import quieten
from vaelab.vae import VAE


def _same_precision(config: dict[str, Any]) -> dict[str, Any]:
    precision = config["trainer"]["precision"]
    if str(precision).startswith("16") and not torch.cuda.is_available():
        precision = "32-true"  # float16 is for GPUs
    return {"accelerator": "auto", "devices": 1, "precision": precision}


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Tests a checkpoint as the end of its training did, scores its test images, and stores the figures.

    The latent samples are drawn from the same seed, so that on the same kind of device and in the same precision the
    test figures are the same.

    Args:
        cfg: what ``configs/evaluate.yaml`` composes.

    Returns:
        The figures, as in ``evaluation.json``.

    Raises:
        UserError: there is no such checkpoint, or it is no checkpoint of this project, or a setting is impossible.
    """
    quieten()
    for name, least in (("samples", 0), ("extremes", 1)):
        if not isinstance(cfg.scores[name], int) or cfg.scores[name] < least:
            raise UserError(f"scores.{name}={cfg.scores[name]}: it must be an integer of at least {least}")
    if cfg.against is not None and cfg.against_run is not None:
        raise UserError("against_run=... names a data set already: leave data@against out")
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
    if cfg.scores.samples:
        torch.manual_seed(cfg.seed)
        figures |= _score(module.vae.to(trainer.strategy.root_device), datamodule, cfg, run_dir)
    reporting.write_json(figures, run_dir / "evaluation.json")
    reporting.print_figures(reporting.shown_path(path), figures, normalized)
    reporting.say(f"written to {reporting.shown_path(run_dir)}")
    return figures


def _score(vae: VAE, datamodule: ImageDataModule, cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Scores of the test images and, where there is one, of another data set's; their files, and figures of them."""
    split = datamodule.splits["test"].part(slice(cfg.scores.limit))
    scores = score_images(vae, split.images, split.labels, cfg.scores.samples, "scoring test images")
    _write_scores(scores, split, datamodule.source.classes, run_dir / "scores.csv")
    save_png(_extremes(scores, split.images, cfg.scores.extremes), run_dir / "extremes.png")
    figures: dict[str, Any] = {
        "score/mean": float(scores.mean()),
        "score/standard_error": float(scores.std() / len(scores) ** 0.5),
        "score/samples": cfg.scores.samples,
        "score/precision": "32-true",
        "score/images": len(scores),
    }
    other, other_vae = _other(cfg, datamodule.binarization)
    if other is None:
        return figures
    if tuple(other.image_shape) != vae.image_shape:
        raise UserError(
            f"against: images of {other.source.name} have shape {list(other.image_shape)}, and the model is of "
            f"{list(vae.image_shape)}: choose a data set of that shape"
        )
    other.prepare_data()
    other.setup()
    others = other.splits["test"].part(slice(cfg.scores.limit))
    names = (datamodule.source.name, other.source.name)
    other_scores = score_images(vae, others.images, others.labels, cfg.scores.samples, f"scoring {names[1]}")
    _write_scores(other_scores, others, other.source.classes, run_dir / "scores_against.csv")
    figures |= {
        "against": names[1],
        "score/mean_against": float(other_scores.mean()),
        "score/auroc": auroc(scores, other_scores),
    }
    if other_vae is not None:
        other_vae.to(next(vae.parameters()).device)
        inliers, outliers = (
            score_images(other_vae, part.images, part.labels, cfg.scores.samples, f"scoring {name} the other way round")
            for part, name in ((others, names[1]), (split, names[0]))
        )
        figures["score/auroc_reversed"] = auroc(inliers, outliers)
    reporting.say(
        f"[dim]AUROC: how likely an image of {names[0]} scores higher than one of {names[1]}; reversed, the other way "
        "round under the other run's model. Below 0.5 the other set looks more likely than the model's own, as simpler "
        "images can (arXiv 1810.09136).[/dim]"
    )
    return figures


def _other(cfg: DictConfig, binarization: str) -> tuple[ImageDataModule | None, VAE | None]:
    """The data set to tell from the model's own, and the model of the run that was trained on it, if one was named."""
    if cfg.against_run is not None:
        path = checkpoint.find(cfg.against_run)
        module, config = checkpoint.rebuild(path)
        return checkpoint.rebuild_data(config, path), module.vae
    if cfg.against is None:
        return None, None
    options = OmegaConf.to_container(cfg.against, resolve=True)
    assert isinstance(options, dict)
    return instantiate({**options, "binarize": binarization, "validation": "test"}, _convert_="all"), None


def _write_scores(scores: Tensor, split: Images, classes: tuple[str, ...], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "score"])
        for i, (label, score) in enumerate(zip(split.labels.tolist(), scores.tolist(), strict=True)):
            writer.writerow([i, classes[label] if label < len(classes) else label, score])


def _extremes(scores: Tensor, images: Tensor, count: int) -> Any:
    """The images with the highest and the lowest scores, a row each, with the scores."""
    count = min(count, len(scores))
    order = scores.argsort(descending=True)
    chosen = torch.cat([order[:count], order.flip(0)[:count]])
    return labelled_grid(
        images[chosen].float() / 255,
        count,
        f"the highest and the lowest scores of {len(scores):,} test images, from the left",
        left=["highest", "lowest"],
    )
