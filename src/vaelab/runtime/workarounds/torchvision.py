"""Makes ``import torchvision`` work where its compiled operators do not match the installed torch.

The torchvision wheels on PyPI are CUDA builds. With a CPU build of torch their library does not load, and the first
import fails with *operator torchvision::nms does not exist*. Lightning imports torchvision (through torchmetrics) and
fails as well. Only the schemas of two operators are missing, and this project uses neither. Once they are declared,
data sets, transforms and models work. The image codecs of ``torchvision.io`` do not work: read images with Pillow.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: Any = None  # torch.library.Library undoes its definitions when it is collected


class _RepairingLoader(importlib.abc.Loader):
    """Runs the loader of torchvision; if the schemas are missing, declares them and runs it again."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        global _library
        try:
            self.loader.exec_module(module)
        except RuntimeError as error:
            if "operator torchvision::nms does not exist" not in str(error):
                raise
            import torch

            _library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in _SCHEMAS:
                _library.define(schema)
            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]  # half imported
            self.loader.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds torchvision with the repairing loader, and no other module."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RepairingLoader(spec.loader)
        return spec


def install() -> None:
    """Lets the next ``import torchvision`` be repaired, if it needs to be."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
