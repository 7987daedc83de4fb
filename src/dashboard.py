"""Builds a W&B workspace and a report of the runs: ``python src/dashboard.py``."""

from typing import TYPE_CHECKING

from vaelab.commands.cli import entry_point

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("dashboard")
def main(cfg: "DictConfig") -> None:
    """Builds both. W&B is imported here, because ``--help`` and errors in settings do not need it."""
    from vaelab.commands.dashboard import dashboard

    dashboard(cfg)


if __name__ == "__main__":
    main()
