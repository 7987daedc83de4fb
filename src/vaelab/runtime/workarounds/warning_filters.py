"""Warnings of Lightning and torch that do not apply to this project."""

import logging
import warnings

MESSAGES = (
    ".*smaller than the logging interval.*",  # training metrics are logged at the end of each epoch
    ".*The dirpath has changed from.*",  # a training that is resumed in a new run folder keeps its checkpoints there
    ".*Checkpoint directory .* exists and is not empty.*",  # a training that is resumed in its run folder
    ".*your dataloader is not resumable.*",  # it is resumable: the data module has a state
    ".*treespec, LeafSpec.*",  # Lightning's use of torch's pytree
    ".*when logging on epoch level in distributed setting.*",  # metrics are reduced over all processes already
)


def filter_warnings() -> None:
    """Hides these warnings, and the log messages of Lightning below a warning."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in MESSAGES:
        warnings.filterwarnings("ignore", message=message)
