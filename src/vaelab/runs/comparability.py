"""Which runs can be compared: those with the same images and the same loss."""

from collections.abc import Mapping
from typing import Any

_SAME = ("choices.data", "choices.loss", "data.binarize", "data.image_shape", "data.source", "conditional")
_WHERE = ("data_dir", "cache_dir")  # the place of the files does not matter; ``folder`` does: it names the images


def shared_settings(config: Mapping[str, Any], is_normalized: bool) -> dict[str, Any]:
    """The settings that two runs must share for their metrics to be comparable.

    Args:
        config: of the run, in plain containers.
        is_normalized: whether its loss is a likelihood of its images. The settings of the loss may then differ.

    Returns:
        The settings by name. They are equal if two runs can be compared.
    """
    settings = {key: _select(config, key) for key in (*_SAME, *(() if is_normalized else ("module.vae.likelihood",)))}
    if isinstance(source := settings["data.source"], Mapping):
        settings["data.source"] = {key: value for key, value in source.items() if key not in _WHERE}
    return settings


def _select(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
