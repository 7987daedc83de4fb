"""Pictures from a trained model: ``python src/generate.py run=latest``."""

from omegaconf import DictConfig

from vaelab.cli import entry_point


@entry_point("generate")
def main(cfg: DictConfig) -> None:
    from vaelab.generation import generate

    generate(cfg)


if __name__ == "__main__":
    main()
