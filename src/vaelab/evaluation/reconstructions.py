"""Errors of reconstructions of test images: MSE, PSNR and SSIM."""

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from vaelab.evaluation.measurement import Measurement, mean_over_images
from vaelab.runs.trained_model import TrainedModel

_SSIM_WINDOW = 11  # pixels; the standard deviation of the Gaussian is 1.5


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of images (B, C, H, W) in [0, 1], at least 11 pixels high and wide; shape (B,).

    Wang et al. (2004): the mean over all windows that lie completely inside the image. The mean of torchmetrics also
    covers a padded border, which raises it for images with a black border.
    """
    _, everywhere = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none", return_full_image=True)
    edge = _SSIM_WINDOW // 2
    return everywhere[..., edge:-edge, edge:-edge].flatten(1).mean(1)


@torch.no_grad()
def measure(model: TrainedModel, limit: int | None) -> Measurement:
    """Mean squared error, PSNR and SSIM of reconstructions of test images.

    Args:
        model: to evaluate.
        limit: number of test images, evenly spaced; ``None`` for all.
    """
    images = model.images("test", limit)
    errors, similarities = [], []
    for x, y in model.batches(images):
        reconstruction = model.vae.reconstruct(x, y).float()
        errors.append((reconstruction - x).square().flatten(1).mean(1).cpu())
        if min(x.shape[-2:]) >= _SSIM_WINDOW:
            similarities.append(structural_similarity(reconstruction, x).cpu())
    mse = torch.cat(errors).double()
    psnr = -10 * mse.clamp(min=1e-10).log10()
    of = model.protocol("test", len(mse))
    rows = [("mse", mse, "", "mean over pixels, with black 0 and white 1"), ("psnr", psnr, "dB", "mean over images")]
    if similarities:
        rows.append(("ssim", torch.cat(similarities).double(), "", "Wang et al. 2004, windows of 11 pixels"))
    return Measurement({name: mean_over_images(values, unit, f"{note}; {of}") for name, values, unit, note in rows})
