"""Computes the test metrics of a trained model: ``python src/evaluate.py run=latest``."""

from typing import TYPE_CHECKING

from vaelab.commands.cli import entry_point
from vaelab.commands.config_validation import check_evaluation

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("evaluate")
def main(cfg: "DictConfig") -> None:
    """Evaluates. torch is imported here, because ``--help`` and errors in settings do not need it."""
    wanted = check_evaluation(cfg)
    from vaelab.commands.evaluate import evaluate_checked

    evaluate_checked(cfg, wanted)


if __name__ == "__main__":
    main()
