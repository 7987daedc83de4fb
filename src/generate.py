"""Pictures from a trained model: ``python src/generate.py run=latest``."""

from omegaconf import DictConfig

from vaelab.cli import entry_point


@entry_point("generate")
def main(cfg: DictConfig) -> None:
    """Generates; the real function loads torch, which an error or --help need not wait for."""
    from vaelab.generation import generate

    generate(cfg)


if __name__ == "__main__":
    main()
