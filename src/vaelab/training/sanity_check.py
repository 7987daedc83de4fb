"""What a batch tells of a model before it is trained."""

import logging

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vaelab.data.datamodule import ImageDataModule
from vaelab.runtime.errors import UserError
from vaelab.training.lightning_module import VAEModule

log = logging.getLogger(__name__)


@torch.no_grad()
def check_one_batch(cfg: DictConfig, module: VAEModule, datamodule: ImageDataModule) -> None:
    """Refuses choices that cannot meet, of which only a batch tells, and warns of outputs that look like pictures."""
    images, labels = datamodule.splits["train"].part(slice(2))[:2]
    module.objective.data_size = len(datamodule.splits["train"].images)
    random_state = torch.get_rng_state()
    given: list[Tensor] = []
    watch = module.vae.decoder.register_forward_pre_hook(lambda decoder, inputs: given.append(inputs[0]))
    try:
        terms = module.eval().objective(module.vae, images.float() / 255, labels)
        far = module.vae.decoder(1e3 * given[0])
    except NotImplementedError as error:  # of torch.distributions: "No KL(p || q) is implemented for ..."
        names = {group: OmegaConf.select(cfg, f"module.{group}._target_") for group in ("vae.posterior", "vae.prior")}
        q, p = (str(name).rpartition(".")[2] for name in names.values())
        if "KL" not in str(error):
            raise UserError(f"{module.config['choices'].get('objective', 'this objective')}: {error}") from error
        raise UserError(
            f"there is no closed form of the divergence between the posterior {q} and the prior {p}: type "
            "objective=elbo_sampled, or module.objective.divergence=sampled for another objective"
        ) from error
    finally:
        watch.remove()
        module.train()
        torch.set_rng_state(random_state)
    # Only what ends in a sigmoid stays there wherever the latents are.
    if ((far >= 0) & (far <= 1)).all():
        log.warning(
            "the decoder's outputs are all between 0 and 1, as if it ended in a sigmoid: the likelihood applies its own"
        )
    figures = [
        f"val/{name}" for name in (*terms, *(["bits_per_dim"] if module.vae.likelihood.has_bits_per_dim else []))
    ]
    if cfg.monitor not in figures:
        raise UserError(f"monitor={cfg.monitor}: there is no such figure; choose from {', '.join(figures)}")


def freeze_untrained(module: VAEModule, datamodule: ImageDataModule) -> None:
    """Freezes what no gradient reaches, as a prior beside a plain autoencoder: several processes would wait for it."""
    images, labels = datamodule.splits["train"].part(slice(2))[:2]
    random_state = torch.get_rng_state()
    module.eval().objective(module.vae, images.float() / 255, labels)["loss"].backward()
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.requires_grad and parameter.grad is not None)
        parameter.grad = None
    module.train()
    torch.set_rng_state(random_state)
