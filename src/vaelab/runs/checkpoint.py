"""Checkpoints: finding them, reading them, and rebuilding a model from one.

A checkpoint is a file of Lightning, with the resolved configuration beside the weights, in plain containers only. An
exported model is ``model.safetensors`` with ``config.json``. Reading either runs no code from the file:
:mod:`vaelab.runs.checkpoint_file` reads nothing but plain values and tensors, and safetensors hold nothing but tensors.
The configuration can only build models, objectives and data sets of this package, see
:mod:`vaelab.runs.checkpoint_schema`.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from vaelab.data.source import Source
from vaelab.models.vae import VAE
from vaelab.objectives import Objective
from vaelab.runs import checkpoint_file, checkpoint_schema
from vaelab.runs.foreign_files import RefusedError, check_tree, read_json, reason, shown
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime import environment
from vaelab.runtime.errors import UserError
from vaelab.runtime.paths import ROOT
from vaelab.runtime.renamed import up_to_date

# The arguments of data sources that name their folder, from the most specific to the most general.
DATA_PATHS = ("folder", "data_dir", "cache_dir")
# The files of an exported model.
WEIGHTS, SETTINGS = "model.safetensors", "config.json"
CHECKSUMS = "sha256"  # in the settings: of the weights and of the configuration; old exports have none
_LARGEST_SETTINGS = 2**20  # bytes


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
    """The contents of a checkpoint, on the CPU, with the present names of classes.

    Every checksum is verified. The weights are tensors of real numbers; the configuration is a tree of plain values.

    Raises:
        UserError: the file cannot be read, is damaged, or is not a checkpoint of this project. The message names a
            checkpoint beside it that is whole, if there is one.
    """
    try:
        return _read(path)
    except _DamagedError as error:
        whole = _whole_beside(path)
        if whole is None:
            raise
        raise UserError(f"{error}; {whole} is whole: type its path instead") from error


class _DamagedError(UserError):
    """A file is no checkpoint, or not as it was written."""


def _whole_beside(path: Path) -> Path | None:
    """The best or the last checkpoint in the same folder, if it can be read."""
    for other in (path.with_name("best.ckpt"), path.with_name("last.ckpt")):
        if other == path or not other.is_file():
            continue
        try:
            _read(other)
        except UserError:
            continue
        return other
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        contents, described = _read_safetensors(path) if path.suffix == ".safetensors" else checkpoint_file.read(path)
        check_tree(contents, described)
    except checkpoint_file.UnknownContentsError as error:
        raise _DamagedError(
            f"{path} was not loaded, because it holds more than tensors and plain values "
            f"({reason(error)}), or is damaged: use a checkpoint written by this project"
        ) from error
    except checkpoint_file.UnreadableError as error:
        raise _DamagedError(
            f"{path} cannot be read as a checkpoint ({reason(error)}): it is damaged or something else"
        ) from error
    except RefusedError as error:
        raise UserError(f"{path} was refused: {error}") from error
    try:
        contents = checkpoint_schema.check_contents(contents)
        # Tied weights are stored once, and loaded twice.
        checkpoint_schema.check_weights(contents["state_dict"], 2 * path.stat().st_size)
    except RefusedError as error:
        raise UserError(f"{path} {error}") from error
    stored = contents["vaelab"]
    return {**contents, "vaelab": {**stored, "config": up_to_date(stored["config"])}}


def _read_safetensors(path: Path) -> tuple[dict[str, Any], int]:
    """An exported model in the form of a checkpoint, and the largest number of values that may describe it."""
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f'{path} needs safetensors: type pip install -e ".[export]"') from error
    settings = path.with_name(SETTINGS)
    try:
        stored = read_json(settings, _LARGEST_SETTINGS)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{settings} cannot be read as the configuration of {path.name}: {reason(error)}") from error
    sums = stored.get(CHECKSUMS) if isinstance(stored, dict) else None
    if sums is not None and sums != checksums(path, stored.get("config")):
        raise UserError(
            f"{path} and {SETTINGS} are not as they were exported, because their checksums differ: copy both again, or "
            f"export the model again; if you have changed {SETTINGS} yourself, delete {CHECKSUMS} from it"
        )
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors raises errors of several types for a damaged file
        raise UserError(f"{path} cannot be read ({reason(error)}): it is damaged or something else") from error
    return {"vaelab": stored, "state_dict": weights}, _LARGEST_SETTINGS + len(weights)


def checksums(weights: Path, config: Any) -> dict[str, str]:
    """SHA-256 of a file of weights and of a configuration, for the settings of an exported model."""
    with weights.open("rb") as file:
        of_weights = hashlib.file_digest(file, "sha256")
    text = json.dumps(config, sort_keys=True)
    return {weights.name: of_weights.hexdigest(), "config": hashlib.sha256(text.encode()).hexdigest()}


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
        UserError: see :func:`read`; or the configuration was refused, or does not fit the weights, or these are not
            numbers.
    """
    contents = read(path)
    config = contents["vaelab"]["config"]

    def make() -> nn.ModuleDict:
        parts = config["module"]
        vae = checkpoint_schema.build(parts.get("vae"), VAE, "module.vae")
        return nn.ModuleDict(
            {"vae": vae, "objective": checkpoint_schema.build(parts.get("objective"), Objective, "module.objective")}
        )

    try:
        if not checkpoint_schema.fits(make, contents["state_dict"], _computations):
            raise _another_model(contents, path)
        model = make().eval()
    except RefusedError as error:
        raise UserError(f"{path} {error}") from error
    load_weights(model, contents, path)
    for name, value in model.state_dict().items():
        if value.isnan().any():
            raise UserError(f"{path} holds no usable model: its weights {name} are not numbers (NaN)")
    vae, objective = model["vae"], model["objective"]
    assert isinstance(vae, VAE)
    assert isinstance(objective, Objective)
    return SavedModel(vae, objective, config)


def _computations(model: Any) -> list[Callable[[], Any]]:
    """What a model does with a single image, if that may need much memory; otherwise nothing, which is quicker."""
    vae: VAE = model["vae"]
    objective: Objective = model["objective"]
    features = max(size for value in model.state_dict().values() for size in (1, *value.shape))  # of a pixel, or more
    if 4 * features * math.prod(vae.image_shape[1:]) * objective.samples <= checkpoint_schema.LARGEST_RESULT:
        return []
    x, z, y = torch.zeros(1, *vae.image_shape), torch.zeros(1, vae.latent_dim), vae.classes_in_turn(1)
    return [lambda: vae.encode(x, y), lambda: vae.decode(z, y).mean, lambda: objective(vae, x, y)]


def rebuild_data(config: dict[str, Any], path: Path, data_dir: str | None = None) -> Any:
    """The data module of a checkpoint's configuration.

    A checkpoint must not choose where this machine writes. Its folders are used only if they hold the files of the data
    set already; otherwise those of this machine are.

    Args:
        config: as :func:`rebuild` returns it.
        path: the checkpoint, for messages.
        data_dir: the folder of the data set, if it has moved.

    Raises:
        UserError: the configuration was refused.
    """
    from vaelab.data.datamodule import ImageDataModule  # here, because it imports Lightning

    data = config.get("data") or {}
    source = data.get("source")
    try:
        if isinstance(source, dict):
            found = config.get("found") or {}  # new files must not change how old ones are read
            data = {**data, "source": _with_folders({**source, **found}, data_dir or None)}
        return checkpoint_schema.build(data, ImageDataModule, "data")
    except RefusedError as error:
        raise UserError(f"{path} {error}") from error


def _with_folders(source: dict[str, Any], data_dir: str | None) -> dict[str, Any]:
    """The configuration of a source with folders of this machine."""
    paths = [key for key in DATA_PATHS if key in source]
    for key in paths:
        if not isinstance(source[key], str | None) or "\0" in (source[key] or ""):
            raise RefusedError(
                f"was refused: its configuration sets data.source.{key}={shown(source[key])}, which must be a path"
            )
    if data_dir is not None:
        if not paths:
            raise UserError(f"data_dir={data_dir}: this data set has no files; leave data_dir out")
        source = {**source, paths[0]: data_dir}
    own = {key: source[key] for key in paths if key != "folder" and (data_dir is None or key != paths[0])}
    if not own or _holds_data(source, own):
        return source
    for key, value in own.items():
        if value is None and key == "cache_dir" and "folder" not in source:
            continue  # this source needs no cache
        machine = environment.variable("DATA_DIR") if key == "data_dir" else None
        source = {**source, key: machine or str(ROOT / "data")}
    return source


def _holds_data(source: dict[str, Any], folders: dict[str, Any]) -> bool:
    """Whether the stated folders exist and hold what the source would write there."""
    if not all(isinstance(folder, str) and os.path.isdir(folder) for folder in folders.values()):
        return False
    built = checkpoint_schema.build(source, Source, "data.source")
    return not hasattr(built, "is_prepared") or bool(built.is_prepared())


def check_training_state(contents: dict[str, Any], parameters: list[nn.Parameter], path: Path) -> None:
    """Refuses a checkpoint from which no training of these parameters can be resumed.

    Raises:
        UserError: it holds only a model, or its state is malformed or does not fit the parameters.
    """
    try:
        checkpoint_schema.check_training_state(contents, parameters)
    except RefusedError as error:
        raise UserError(f"{path} {error}; type another ckpt_path, or train again") from error


def load_weights(module: nn.Module, contents: dict[str, Any], path: Path) -> None:
    """Loads all weights of a checkpoint into a module.

    Raises:
        UserError: they are the weights of another model.
    """
    try:
        module.load_state_dict(contents["state_dict"])
    except RuntimeError as error:
        raise _another_model(contents, path) from error


def _another_model(contents: dict[str, Any], path: Path) -> UserError:
    return UserError(
        f"{path} holds another model than this configuration: type the options it was trained with, "
        f"{_options(contents)}"
    )


def _options(contents: dict[str, Any]) -> str:
    config = contents["vaelab"]["config"]
    choices = config.get("choices", {})
    names = ("data", "model", "loss", "prior", "posterior")
    options = {**{name: choices[name] for name in names if name in choices}, "latent_dim": config.get("latent_dim")}
    return " ".join(f"{name}={str(option)[:40]}" for name, option in options.items())
