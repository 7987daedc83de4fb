"""The test figures of a trained model: ``python src/evaluate.py run=latest``."""

from omegaconf import DictConfig

from vaelab.cli import entry_point


@entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluates; the real function loads torch, which an error or --help need not wait for."""
    from vaelab.evaluation import evaluate

    evaluate(cfg)


if __name__ == "__main__":
    main()
