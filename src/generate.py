"""Draws images with a trained model: ``python src/generate.py run=latest``."""

from typing import TYPE_CHECKING

from vaelab.commands.cli import entry_point
from vaelab.commands.config_validation import check_generation

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("generate")
def main(cfg: "DictConfig") -> None:
    """Generates. torch is imported here, because ``--help`` and errors in settings do not need it."""
    wanted = check_generation(cfg)
    from vaelab.commands.generate import generate_checked

    generate_checked(cfg, wanted)


if __name__ == "__main__":
    main()
