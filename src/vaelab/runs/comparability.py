"""Which runs can be compared: those whose figures are of the same images and the same loss."""

from collections.abc import Mapping
from typing import Any

_SAME = ("choices.data", "choices.loss", "data.binarize", "data.image_shape", "data.source", "conditional")
_WHERE = ("data_dir", "cache_dir")  # where a source's files lie; a folder of images is what it has


def shared_settings(config: Mapping[str, Any], is_normalized: bool) -> dict[str, Any]:
    """What the runs have in common whose figures can be compared with a run's.

    Args:
        config: of the run, in plain containers.
        is_normalized: whether its loss is a likelihood of its images, whose settings can then differ.

    Returns:
        The settings by their names; equal of two runs that can be compared.
    """
    settings = {key: _select(config, key) for key in (*_SAME, *(() if is_normalized else ("module.vae.likelihood",)))}
    if isinstance(source := settings["data.source"], Mapping):
        settings["data.source"] = {key: value for key, value in source.items() if key not in _WHERE}
    return settings


def _select(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
