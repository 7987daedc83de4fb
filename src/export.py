"""Exports a trained model: ``python src/export.py run=latest format=onnx``."""

from typing import TYPE_CHECKING

from vaelab.commands.cli import entry_point
from vaelab.commands.config_validation import check_export

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry_point("export")
def main(cfg: "DictConfig") -> None:
    """Exports. torch is imported here, because ``--help`` and errors in settings do not need it."""
    wanted = check_export(cfg)
    from vaelab.commands.export import export_checked

    export_checked(cfg, wanted)


if __name__ == "__main__":
    main()
