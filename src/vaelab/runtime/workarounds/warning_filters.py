"""What Lightning and torch say that does not apply here."""

import logging
import warnings


def filter_warnings() -> None:
    """Leaves out what Lightning says about itself and what does not apply here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*smaller than the logging interval.*",  # training figures are logged at the end of an epoch, however short
        ".*The dirpath has changed from.*",  # a training continued in a new run folder keeps its checkpoints there
        ".*Checkpoint directory .* exists and is not empty.*",  # a training continued in its run folder
        ".*your dataloader is not resumable.*",  # it is, by the data module's state
        ".*treespec, LeafSpec.*",  # Lightning, of torch's pytree
        ".*when logging on epoch level in distributed setting.*",  # what is logged is of all processes already
    ):
        warnings.filterwarnings("ignore", message=message)
