"""The plots of a tested model, see :mod:`vaelab.visualization.gallery`."""

from collections.abc import Callable, Mapping
from pathlib import Path

import lightning as L

from vaelab.runs.run_folder import RunFolder
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.console import best_effort
from vaelab.runtime.random import eval_mode
from vaelab.runtime.validation import AtLeastTwo
from vaelab.training.callbacks.image_logging import log_image
from vaelab.training.lightning_module import VAEModule
from vaelab.training.loggers import CSVLogger
from vaelab.visualization.gallery import GalleryImage


class Gallery(L.Callback):
    """Draws the plots once, after the test, with the tested weights and test images.

    Each plot is written to ``<folder>/<name>.png`` and sent to W&B and TensorBoard as ``test/<name>``.

    Args:
        folder: of the files.
        pictures: the plotting function of each plot, by name. A plot whose function is ``None`` is left out.
        images: the number of test images to use, evenly spaced.
    """

    def __init__(
        self,
        folder: str,
        pictures: Mapping[str, Callable[[TrainedModel], GalleryImage] | None],
        images: AtLeastTwo = 10_000,
    ) -> None:
        self.folder, self.pictures, self.images = Path(folder), pictures, images

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, VAEModule)
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        logger = next((logger for logger in trainer.loggers if isinstance(logger, CSVLogger)), None)
        run = None if logger is None else RunFolder(logger.path.parent)
        model = TrainedModel.of(pl_module, datamodule, self.images, run)
        for name, plot in self.pictures.items():
            if callable(plot):
                with best_effort(name), eval_mode(pl_module):
                    log_image(trainer, self.folder, name, plot(model).image, "test")
