"""Writes a page to explore the latent space of a model in a browser: ``python src/explore.py run=latest``."""

from typing import TYPE_CHECKING

from vaelab.commands.cli import entry_point
from vaelab.commands.config_validation import check_exploration

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("explore")
def main(cfg: "DictConfig") -> None:
    """Explores. torch is imported here, because ``--help`` and errors in settings do not need it."""
    check_exploration(cfg)
    from vaelab.commands.explore import explore_checked

    explore_checked(cfg)


if __name__ == "__main__":
    main()
