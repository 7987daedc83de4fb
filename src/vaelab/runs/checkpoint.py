"""Checkpoints: finding them, reading them, and rebuilding a model from one.

A checkpoint is a file of Lightning, with the resolved configuration beside the weights, in plain containers only. An
exported model is ``model.safetensors`` with ``config.json``. Reading either runs no code from the file: checkpoints are
loaded with ``weights_only``, and safetensors hold nothing but tensors. The configuration can only build models,
objectives and data sets of this package.
"""

import importlib
import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from torch import nn

from vaelab.models.vae import VAE
from vaelab.objectives import Objective
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.paths import ROOT
from vaelab.runtime.renamed import up_to_date

# The arguments of data sources that name their folder, from the most specific to the most general.
DATA_PATHS = ("folder", "data_dir", "cache_dir")
# The files of an exported model.
WEIGHTS, SETTINGS = "model.safetensors", "config.json"

_TARGET = re.compile(
    r"(vaelab\.(?:models\.(?:vae|likelihoods|priors|posteriors|networks\.\w+)|objectives|data\.\w+))\.([A-Za-z]\w*)"
)


def find(run: str | Path, prefer: str = "best") -> Path:
    """The checkpoint file of a run.

    Args:
        run: a checkpoint file; a run folder, or a folder with ``model.safetensors``; or ``latest``, the newest run.
        prefer: ``best`` or ``last``, among the checkpoints of a run folder. If it is missing, the other one is used.

    Raises:
        UserError: there is no checkpoint.
    """
    is_latest = str(run) in ("latest", "last")  # Lightning says last
    path = (ROOT / "logs" / "train" / "latest" if is_latest else Path(str(run)).expanduser()).resolve()
    if path.is_file():
        return path
    if not path.exists():
        if is_latest:
            raise UserError("no run has finished an epoch yet: train one (python src/train.py), or name a run folder")
        raise UserError(f"{path} does not exist: type a run folder (logs/train/runs/...), a checkpoint, or latest")
    for name in (prefer, "best", "last"):
        if (found := RunFolder(path).checkpoint(name)).is_file():
            return found
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    raise UserError(f"{path} holds no checkpoints/best.ckpt or last.ckpt: type another run folder")


def read(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU.

    Raises:
        UserError: the file cannot be read, holds more than plain containers and tensors, or is not a checkpoint of this
            project.
    """
    if path.suffix == ".safetensors":
        return _checked_format(_read_safetensors(path), path)
    _check_archive(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} was not loaded, because it holds more than tensors and plain values, or is damaged: "
            "use a checkpoint written by this project"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, MemoryError) as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint ({first_line(error)}): it is damaged or something else"
        ) from error
    return _checked_format(checkpoint, path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    """The weights and the configuration of an exported model, in the form of a checkpoint."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f'{path} needs safetensors: type pip install -e ".[export]"') from error
    settings = path.with_name(SETTINGS)
    try:
        stored = json.loads(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{settings} cannot be read as the configuration of {path.name}: {first_line(error)}"
        ) from error
    try:
        weights = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): it is damaged or something else") from error
    return {"vaelab": stored, "state_dict": weights}


def _checked_format(checkpoint: Any, path: Path) -> dict[str, Any]:
    """The contents of a checkpoint with the present names of classes; refuses anything else."""
    if not (isinstance(checkpoint, dict) and isinstance(checkpoint.get("vaelab"), dict) and "state_dict" in checkpoint):
        raise UserError(f"{path} is not a checkpoint of this project: its configuration is missing")
    if checkpoint["vaelab"].get("format") != 1:
        raise UserError(f"{path} was written by another version of this project, which this one cannot read")
    stored = checkpoint["vaelab"]
    return {**checkpoint, "vaelab": {**stored, "config": up_to_date(stored.get("config"))}}


def _check_archive(path: Path) -> None:
    """Refuses a file that is not an archive as torch writes it, or would need more memory than its size.

    torch writes uncompressed archives. A small compressed file could unpack to more zeros than the machine has memory.
    So could a file in torch's old format, in which the size of a tensor is stated before its data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        claimed = sum(entry.file_size for entry in entries)
        honest = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if honest and claimed <= path.stat().st_size:
            return
        reason = f"its {path.stat().st_size:,} bytes claim to hold {claimed:,}"
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        reason = first_line(error)
    raise UserError(f"{path} cannot be read as a checkpoint ({reason}): it is damaged or something else")


def _is_ours(target: str) -> bool:
    """Whether a module of this package defines the class or function of this name, and does not only import it.

    A package may export what its own modules define.
    """
    match = _TARGET.fullmatch(target)
    if match is None:
        return False
    try:
        part = getattr(importlib.import_module(match[1]), match[2], None)
    except ImportError:
        return False
    origin = str(getattr(part, "__module__", None))
    return origin == match[1] or origin.startswith(f"{match[1]}.")


def _checked(node: Any, path: Path) -> Any:
    """A copy of a part of a checkpoint's configuration; refuses anything but plain values and names of this package.

    Only lists and dictionaries are allowed, because Hydra would look for ``_target_`` in other containers too.
    """
    if type(node) is list:
        return [_checked(child, path) for child in node]
    if type(node) is dict and all(type(key) is str for key in node):
        if "_target_" in node and not (type(node["_target_"]) is str and _is_ours(node["_target_"])):
            raise UserError(f"{path} was refused: its configuration names {node['_target_']!r}, no model or data set")
        return {key: _checked(child, path) for key, child in node.items()}
    if type(node) is str and "${" in node:
        raise UserError(f"{path} was refused: its configuration contains an interpolation, {node!r}")
    if node is None or type(node) in (str, int, float, bool):
        return node
    raise UserError(f"{path} was refused: its configuration contains a {type(node).__name__}, no plain value")


def _build(config: Any, path: Path) -> Any:
    """Instantiates a part of a checkpoint's configuration, after :func:`_checked`."""
    return instantiate(_checked(config, path), _convert_="all")


class SavedModel(NamedTuple):
    """A model rebuilt from a checkpoint, in evaluation mode on the CPU.

    Attributes:
        vae: the model, with its weights.
        objective: the objective of its training.
        config: the resolved configuration of its training.
    """

    vae: VAE
    objective: Objective
    config: dict[str, Any]


def rebuild(path: Path) -> SavedModel:
    """The model of a checkpoint.

    Raises:
        UserError: see :func:`read`; or the configuration was refused, or does not fit the weights.
    """
    checkpoint = read(path)
    try:
        config = checkpoint["vaelab"]["config"]
        parts = config["module"]
        _check_sizes(parts["vae"], checkpoint, path)
        saved = SavedModel(_build(parts["vae"], path), _build(parts["objective"], path), config)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not a checkpoint of this project: its configuration is incomplete") from error
    load_weights(nn.ModuleDict({"vae": saved.vae, "objective": saved.objective}).eval(), checkpoint, path)
    return saved


def rebuild_data(config: dict[str, Any], path: Path, data_dir: str | None = None) -> Any:
    """The data module of a checkpoint's configuration. Folders that do not exist are replaced by this machine's.

    Args:
        config: as :func:`rebuild` returns it.
        path: the checkpoint, for messages.
        data_dir: the folder of the data set, if it has moved.
    """
    source = {**config["data"]["source"], **config.get("found", {})}  # new files must not change how old ones are read
    for key in DATA_PATHS:
        if key == "folder" or key not in source:
            continue
        value = source[key]
        unknown = value is None and (key == "data_dir" or "folder" in source)  # other sources allow None
        if unknown or (value is not None and not Path(str(value)).is_dir()):
            # The folder is on another machine. A checkpoint must not choose where this machine writes.
            source[key] = os.environ.get("DATA_DIR") if key == "data_dir" else None
            source[key] = source[key] or str(ROOT / "data")
    if data_dir:
        source[next(key for key in DATA_PATHS if key in source)] = data_dir
    return _build({**config["data"], "source": source}, path)


def _check_sizes(vae: Any, checkpoint: dict[str, Any], path: Path) -> None:
    """Refuses a configuration that does not fit the weights, before any memory is allocated for the model."""
    with torch.device("meta"):
        model = _build(vae, path)
    wanted = {f"vae.{name}": value.shape for name, value in model.state_dict().items()}
    weights = checkpoint["state_dict"].items()
    if wanted != {name: getattr(value, "shape", None) for name, value in weights if name.startswith("vae.")}:
        raise _another_model(checkpoint, path)


def load_weights(module: nn.Module, checkpoint: dict[str, Any], path: Path) -> None:
    """Loads all weights of a checkpoint into a module.

    Raises:
        UserError: they are the weights of another model.
    """
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise _another_model(checkpoint, path) from error


def _another_model(checkpoint: dict[str, Any], path: Path) -> UserError:
    return UserError(
        f"{path} holds another model than this configuration: type the options it was trained with, "
        f"{_options(checkpoint)}"
    )


def _options(checkpoint: dict[str, Any]) -> str:
    config = checkpoint["vaelab"]["config"]
    choices = config.get("choices", {})
    names = ("data", "model", "loss", "prior", "posterior")
    return " ".join([*(f"{n}={choices[n]}" for n in names if n in choices), f"latent_dim={config.get('latent_dim')}"])
