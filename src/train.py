"""Train a VAE: ``python src/train.py model=conv loss=bce latent_dim=20``; ``--help`` says what there is to choose."""

from typing import TYPE_CHECKING

from vaelab.commands.cli import entry_point
from vaelab.commands.config_validation import check_training

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("train")
def main(cfg: "DictConfig") -> float | None:
    """Trains; the real function loads torch, which an error or --help need not wait for.

    Returns:
        The ELBO on validation images, by which a sweep ranks its jobs and a search chooses the next ones.
    """
    check_training(cfg)
    from vaelab.commands.train import train_checked

    return train_checked(cfg).get("val/elbo")


if __name__ == "__main__":
    main()
