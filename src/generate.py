"""Pictures from a trained model: ``python src/generate.py run=latest``."""

from typing import TYPE_CHECKING

from vaelab.commands.cli import entry_point
from vaelab.commands.config_validation import check_generation

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("generate")
def main(cfg: "DictConfig") -> None:
    """Generates; the real function loads torch, which an error or --help need not wait for."""
    wanted = check_generation(cfg)
    from vaelab.commands.generate import generate_checked

    generate_checked(cfg, wanted)


if __name__ == "__main__":
    main()
