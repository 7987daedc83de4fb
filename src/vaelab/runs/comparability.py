"""Which runs can be compared: those whose metrics are of the same images and the same loss."""

from collections.abc import Mapping
from typing import Any

# Settings of the data that do not change the images of an evaluation. All others do, also those of new data sets.
_OTHER: tuple[str, ...] = ("data._target_", "data.batch_size", "data.eval_batch_size", "data.shuffle", "data.drop_last")
_OTHER += ("data.seed", "data.classes")  # the seed is that of training batches
_OTHER += ("data.source.data_dir", "data.source.cache_dir")  # where the files are; ``folder`` names the images
# Settings of the trainer that leave images out, or take others.
_LIMITS = ("limit_val_batches", "limit_test_batches", "overfit_batches", "fast_dev_run")


def shared_settings(config: Mapping[str, Any], is_normalized: bool, tests_all: bool = False) -> dict[str, Any]:
    """The settings that two runs must share for their metrics to be comparable.

    Args:
        config: of the run, in plain containers.
        is_normalized: whether its loss is a likelihood of its images. The settings of the loss may then differ.
        tests_all: whether the metrics are those of an evaluation: of all test images, and of no validation images.

    Returns:
        The settings by name. They are equal if two runs can be compared.
    """
    keys = ["choices.data", "choices.loss", "conditional", *([] if is_normalized else ["module.vae.likelihood"])]
    settings = {key: _select(config, key) for key in keys}
    settings |= {key: value for key, value in _flat("data", config.get("data")) if key not in _OTHER}
    settings = {key: value for key, value in settings.items() if value is not None}  # older runs lack newer settings
    if tests_all:
        settings.pop("data.validation", None)
        return settings
    trainer = config.get("trainer") or {}
    limits = {f"trainer.{name}": trainer[name] for name in _LIMITS if not _is_off(name, trainer.get(name))}
    if limits:  # a number of batches is a number of images only together with their size
        limits["data.eval_batch_size"] = _select(config, "data.eval_batch_size")
    return settings | limits


def _is_off(name: str, value: Any) -> bool:
    return value in (None, 0) or (name.startswith("limit_") and type(value) is float and value == 1)


def _flat(prefix: str, node: Any) -> list[tuple[str, Any]]:
    """The settings of a nested dict with their full keys."""
    if not isinstance(node, Mapping):
        return [(prefix, node)]
    return [setting for key, value in node.items() for setting in _flat(f"{prefix}.{key}", value)]


def _select(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
