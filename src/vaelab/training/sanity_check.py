"""Checks of a model on one batch, before it is trained."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vaelab.data.batches import to_floats
from vaelab.data.datamodule import ImageDataModule
from vaelab.runtime.errors import UserError, raised_in
from vaelab.training.lightning_module import VAEModule

log = logging.getLogger(__name__)

# Whether the largest or the smallest value of a metric is the best. The other terms are parts of a trade-off.
_BEST = {"elbo": "max", "loss": "min", "bits_per_dim": "min"}


@contextmanager
def _two_images(module: VAEModule, datamodule: ImageDataModule) -> Iterator[tuple[Tensor, Tensor]]:
    """Two training images and their labels, in evaluation mode; the random state is restored afterwards."""
    images, labels = datamodule.splits["train"].part(slice(2))[:2]
    module.objective.data_size = len(datamodule.splits["train"].images)
    random_state = torch.get_rng_state()
    module.eval()
    try:
        yield to_floats(images), labels
    finally:
        module.train()
        torch.set_rng_state(random_state)


@torch.no_grad()
def check_one_batch(cfg: DictConfig, module: VAEModule, datamodule: ImageDataModule) -> None:
    """Refuses combinations of choices that only a batch shows to be impossible.

    It also warns if the outputs of the decoder look like images instead of logits.

    Raises:
        UserError: with what to type instead.
    """
    given: list[Tensor] = []
    hook = module.vae.decoder.register_forward_pre_hook(lambda decoder, inputs: given.append(inputs[0]))
    try:
        with _two_images(module, datamodule) as (x, y):
            terms = module.objective(module.vae, x, y)
            far = module.vae.decoder(1e3 * given[0])
    except NotImplementedError as error:
        names = {group: OmegaConf.select(cfg, f"module.{group}._target_") for group in ("vae.posterior", "vae.prior")}
        q, p = (str(name).rpartition(".")[2] for name in names.values())
        if raised_in(error) != "torch.distributions.kl":
            raise UserError(f"{module.config['choices'].get('objective', 'this objective')}: {error}") from error
        raise UserError(
            f"there is no closed form of the divergence between the posterior {q} and the prior {p}: type "
            "objective=elbo_sampled, or module.objective.divergence=sampled for another objective"
        ) from error
    finally:
        hook.remove()
    # Only the outputs of a sigmoid stay between 0 and 1 for any latents.
    if ((far >= 0) & (far <= 1)).all():
        log.warning(
            "the decoder's outputs are all between 0 and 1, as if it ended in a sigmoid: the likelihood applies its own"
        )
    extra = ["bits_per_dim"] if module.vae.likelihood.has_bits_per_dim else []
    _check_monitors(cfg, [f"val/{name}" for name in (*terms, *extra)])


def _check_monitors(cfg: DictConfig, metrics: list[str]) -> None:
    """Refuses to watch a metric that is not there, or to choose what is worst by it."""
    parts = {"": cfg, "scheduler.": cfg.scheduler}
    parts |= {f"callbacks.{name}.": node for name, node in cfg.callbacks.items()}
    for prefix, node in parts.items():
        metric = node.get("monitor") if node else None
        if metric is None:
            continue
        if metric not in metrics:
            raise UserError(f"{prefix}monitor={metric}: there is no such metric; choose from {', '.join(metrics)}")
        setting = f"{prefix}mode" if prefix else "monitor_mode"
        mode, best = node.get(setting.rpartition(".")[2]), _BEST.get(metric.removeprefix("val/"))
        if best is not None and mode is not None and mode != best:
            raise UserError(f"{setting}={mode}: this chooses the worst by {metric}; type {setting}={best}")


def freeze_untrained(module: VAEModule, datamodule: ImageDataModule) -> None:
    """Freezes parameters that no gradient reaches, such as a prior's beside a plain autoencoder.

    Several processes would wait for their gradients.
    """
    with _two_images(module, datamodule) as (x, y):
        module.objective(module.vae, x, y)["loss"].backward()
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.requires_grad and parameter.grad is not None)
        parameter.grad = None
