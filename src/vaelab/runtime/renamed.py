"""Names of modules and classes that have moved.

Old checkpoints, run folders and exported models name their classes by old paths; so may the YAML files and the programs
of users. One table serves both: :func:`up_to_date` rewrites configurations, before any check of their names, and
:func:`install` lets ``import`` find the old modules, with a warning. All new names are names of this package.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

# Old prefix, new prefix; the first that fits counts. Until version 0.1.0 most modules lay side by side.
_MODULES = (
    ("vaelab.callbacks.drawing", "vaelab.training.callbacks.image_logging"),
    ("vaelab.callbacks.latents", "vaelab.training.callbacks.latent_space"),
    ("vaelab.callbacks.latest", "vaelab.training.callbacks.latest_link"),
    ("vaelab.callbacks.pictures", "vaelab.training.callbacks.samples"),
    ("vaelab.callbacks.progress", "vaelab.training.callbacks.progress_bar"),
    ("vaelab.callbacks.pruning", "vaelab.training.callbacks.optuna_pruning"),
    ("vaelab.callbacks.stopping", "vaelab.training.callbacks.graceful_stop"),
    ("vaelab.callbacks.stopwatch", "vaelab.training.callbacks.timer"),
    ("vaelab.callbacks.validation", "vaelab.training.callbacks.final_validation"),
    ("vaelab.callbacks", "vaelab.training.callbacks"),
    ("vaelab.cli", "vaelab.commands.cli"),
    ("vaelab.distributions", "vaelab.models.distributions.latents"),
    ("vaelab.errors", "vaelab.runtime.errors"),
    ("vaelab.figures", "vaelab.visualization.plots"),
    ("vaelab.flows", "vaelab.models.distributions.flows"),
    ("vaelab.likelihoods", "vaelab.models.likelihoods"),
    ("vaelab.loggers", "vaelab.training.loggers"),
    ("vaelab.model", "vaelab.runs.api"),
    ("vaelab.module", "vaelab.training.lightning_module"),
    ("vaelab.networks", "vaelab.models.networks"),
    ("vaelab.pictures", "vaelab.visualization.gallery"),
    ("vaelab.pixels", "vaelab.models.distributions.pixels"),
    ("vaelab.posteriors", "vaelab.models.posteriors"),
    ("vaelab.priors", "vaelab.models.priors"),
    ("vaelab.report.__main__", "vaelab.commands.report"),
    ("vaelab.report", "vaelab.visualization.report"),
    ("vaelab.schedulers", "vaelab.training.schedulers"),
    ("vaelab.sharing", "vaelab.runtime.data_parallel"),
    ("vaelab.vae", "vaelab.models.vae"),
)
# Old name, new name, of classes and functions that have another name besides.
_CLASSES = {
    "vaelab.callbacks.latents.Latents": "vaelab.training.callbacks.latent_space.LatentSpace",
    "vaelab.callbacks.pictures.Pictures": "vaelab.training.callbacks.samples.Samples",
    "vaelab.callbacks.progress.Progress": "vaelab.training.callbacks.progress_bar.ProgressBar",
    "vaelab.cli.SweepFolder": "vaelab.commands.cli.SweepWatcher",
}
# Settings of classes that were added later, with the values that mean what the class did before.
_ADDED: dict[str, dict[str, Any]] = {
    "vaelab.data.image_folder.ImageFolder": {"splits": None, "pixel_range": None},
}


def new_name(name: str) -> str:
    """The present name of a module, a class or a function; any other name is returned as it is."""
    if name in _CLASSES:
        return _CLASSES[name]
    for old, new in _MODULES:
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name


def up_to_date(node: Any) -> Any:
    """A copy of a configuration, in plain containers, with the present names and settings of classes (``_target_``)."""
    if type(node) is dict:  # containers of other kinds are left for the checks that refuse them
        renamed = {
            key: new_name(value) if key == "_target_" and isinstance(value, str) else up_to_date(value)
            for key, value in node.items()
        }
        target = renamed.get("_target_")
        return (_ADDED.get(target, {}) if isinstance(target, str) else {}) | renamed
    if type(node) is list:
        return [up_to_date(child) for child in node]
    return node


class _Loader(importlib.abc.InspectLoader):
    """Gives an old module's name to the module that has taken its place."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._spec: importlib.machinery.ModuleSpec | None = None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the old name there

    def is_package(self, fullname: str) -> bool:
        spec = importlib.util.find_spec(self.name)
        return spec is not None and spec.submodule_search_locations is not None

    def get_source(self, fullname: str) -> str | None:
        return self._inspect().get_source(self.name)

    def get_code(self, fullname: str) -> CodeType | None:  # python -m asks for it
        return self._inspect().get_code(self.name)

    def _inspect(self) -> importlib.abc.InspectLoader:
        spec = importlib.util.find_spec(self.name)
        assert spec is not None
        assert isinstance(spec.loader, importlib.abc.InspectLoader)
        return spec.loader


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        new = new_name(name)
        if new == name:
            return None
        warnings.warn(f"{name} has moved: its name is {new}", DeprecationWarning, stacklevel=2)
        return importlib.util.spec_from_loader(name, _Loader(new))


def install() -> None:
    """Lets ``import`` find modules by their old names."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())  # the last one: it is asked only for what is not there
