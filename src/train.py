"""Trains a VAE: ``python src/train.py model=conv loss=bce latent_dim=20``; ``--help`` prints the choices."""

from typing import TYPE_CHECKING

from vaelab.commands.cli import entry_point
from vaelab.commands.config_validation import check_training

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("train")
def main(cfg: "DictConfig") -> float | None:
    """Trains. torch is imported here, because ``--help`` and errors in settings do not need it.

    Returns:
        The ELBO on validation images: a sweep ranks its jobs by it, and a search maximises it.
    """
    check_training(cfg)
    from vaelab.commands.train import train_checked

    return train_checked(cfg).get("val/elbo")


if __name__ == "__main__":
    main()
