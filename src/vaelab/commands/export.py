"""Exports a trained model, and compares each file with the model: what ``export.py`` runs."""

import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.markup import escape
from torch import Tensor

from vaelab.commands.config_validation import check_export
from vaelab.commands.model_card import write_card
from vaelab.models.traceable import Decoder, Encoder, Outputs
from vaelab.models.vae import VAE
from vaelab.runs import checkpoint
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime import console
from vaelab.runtime.errors import UserError
from vaelab.runtime.files import atomic_write, write_text
from vaelab.runtime.random import evaluation_seed
from vaelab.runtime.version import __version__

# Parts of the configuration that rebuild the model and its data. Others describe the machine of the training.
_EXPORTED = ("choices", "latent_dim", "conditional", "seed", "data", "found", "module", "trainer")
_TRAINER_EXPORTED = ("precision", "max_epochs", "max_steps")
_BATCHES = (1, 7)  # sizes with which files are tested; they are traced with another one


def export(cfg: DictConfig) -> list[Path]:
    """Writes a model in the chosen formats, loads each file again, and compares the outputs.

    Args:
        cfg: as ``configs/export.yaml`` composes it.

    Returns:
        The files.

    Raises:
        UserError: there is no such checkpoint or format, a package is missing, or the outputs of a file differ.
    """
    return export_checked(cfg, check_export(cfg))


def export_checked(cfg: DictConfig, wanted: list[str]) -> list[Path]:
    """Exports as :func:`export` does, with settings that are checked already and the chosen formats."""
    for name in wanted:
        _check_packages(name)
    folder = Path(cfg.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint.find(cfg.run)
    files: list[Path] = []
    with evaluation_seed(torch.device("cpu")), torch.no_grad():
        model = TrainedModel.load(path)
        vae = model.vae
        for name in wanted:
            if name in ("onnx", "torch_export"):
                files += [_traced(vae, part, name, folder, cfg.tolerance) for part in (Encoder, Decoder)]
            else:
                target = folder / "hub" if name == "hub" else folder
                files += _weights(path, vae, target, cfg.tolerance)
            if name == "hub":
                files.append(write_card(model, path, folder / "hub", cfg.license))
                console.print_line(f"hub: {console.short_path(folder / 'hub')}")
    return files


def _check_packages(name: str) -> None:
    """Raises an error if a package for this format is not installed."""
    packages = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",), "hub": ("safetensors",)}
    for package in packages.get(name, ()):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(f'format={name} needs {package}: type pip install -e ".[export]"') from error


def _traced(vae: VAE, part: type[Encoder | Decoder], name: str, folder: Path, tolerance: float) -> Path:
    """Writes the encoder or the decoder, tests the file, and returns its path."""
    path = folder / f"{part.__name__.lower()}{'.onnx' if name == 'onnx' else '.pt2'}"
    with _quiet():
        program = trace(vae, part)
        run = _onnx(program, path) if name == "onnx" else _torch_export(program, path)
    differences: list[float] = []
    for count in _BATCHES:
        inputs = example(vae, part, count)
        expected, found = part(vae)(**inputs), run(inputs)
        differences += [_difference(value, found[key]) for key, value in expected.items()]
    difference = _largest(differences)
    _check_difference(path, difference, tolerance)
    takes, returns = (
        ", ".join(f"{key} {list(value.shape[1:])}" for key, value in x.items()) for x in (inputs, expected)
    )
    console.print_line(escape(f"{console.short_path(path)}: {takes} to {returns}, within {difference:.1e} of torch"))
    return path


def _check_difference(path: Path, difference: float, tolerance: float) -> None:
    """Deletes a file and raises an error if its outputs differ too much."""
    if not difference <= tolerance:  # true for NaN as well
        path.unlink()
        raise UserError(
            f"{path.name} differs from the checkpoint's model by {difference:.1e}, more than tolerance={tolerance}: "
            "it was deleted"
        )


def _largest(differences: list[float]) -> float:
    """The largest difference; NaN if one of them is, which ``max`` would lose."""
    return float(torch.tensor(differences, dtype=torch.float64).max())


def _difference(expected: Tensor, found: Tensor) -> float:
    """The largest absolute difference; infinite if the shapes differ."""
    if expected.shape != found.shape:
        return float("inf")
    return float((expected.double() - found.double()).abs().max())


def example(vae: VAE, part: type[Encoder | Decoder], count: int) -> dict[str, Tensor]:
    """Inputs by name: samples for the encoder, latents from the prior for the decoder."""
    labels = vae.classes_in_turn(count)
    torch.manual_seed(count)
    z = vae.sample_latents(count)
    values = {"latents": z} if part is Decoder else {"images": vae.decode(z, labels).mean}
    return values if labels is None else {**values, "labels": labels}


def trace(vae: VAE, part: type[Encoder | Decoder]) -> torch.export.ExportedProgram:
    """The graph of the encoder or the decoder, for batches of any size."""
    inputs, batch = example(vae, part, 3), torch.export.Dim("batch")
    shapes = {key: {0: batch} for key in inputs}
    return torch.export.export(part(vae).eval(), (), inputs, dynamic_shapes=shapes, strict=False)


Run = Callable[[dict[str, Tensor]], Outputs]


def _onnx(program: torch.export.ExportedProgram, path: Path) -> Run:
    """Writes an ONNX file, and returns a function that runs it."""
    import onnxruntime

    inputs = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    outputs = list(program.call_spec.out_spec.context)  # the names of a dictionary, in the order of the graph
    exported = torch.onnx.export(program, dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
    assert exported is not None
    exported.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(values: dict[str, Tensor]) -> Outputs:
        found = session.run(outputs, {key: value.numpy() for key, value in values.items()})
        return {key: torch.from_numpy(value) for key, value in zip(outputs, found, strict=True)}

    return run


def _torch_export(program: torch.export.ExportedProgram, path: Path) -> Run:
    """Writes a file of ``torch.export``, and returns a function that runs it."""
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    return lambda values: loaded(**values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the messages and warnings of exporters inside the context."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _weights(path: Path, vae: VAE, folder: Path, tolerance: float) -> list[Path]:
    """Writes ``model.safetensors`` and ``config.json``, from which :func:`vaelab.load` builds the same model."""
    from safetensors.torch import save

    stored = checkpoint.read(path)
    config = portable(stored["vaelab"]["config"])
    weights, settings = folder / checkpoint.WEIGHTS, folder / checkpoint.SETTINGS
    with atomic_write(weights) as file:
        file.write(save({name: value.contiguous().clone() for name, value in stored["state_dict"].items()}))
    sums = checkpoint.checksums(weights, config)
    about = {"library": "vaelab", "version": __version__, "format": stored["vaelab"]["format"]}
    written = {**about, checkpoint.CHECKSUMS: sums, "config": config}
    write_text(json.dumps(written, indent=2, allow_nan=False) + "\n", settings)
    loaded = checkpoint.rebuild(weights)
    differences: list[float] = []
    for part in (Encoder, Decoder):
        inputs = example(vae, part, max(_BATCHES))
        expected, found = part(vae)(**inputs), part(loaded.vae)(**inputs)
        differences += [_difference(value, found[key]) for key, value in expected.items()]
    difference = _largest(differences)
    _check_difference(weights, difference, tolerance)
    console.print_line(f"{console.short_path(weights)} and config.json: within {difference:.1e} of the checkpoint")
    return [weights, settings]


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """The parts of a configuration that describe the model and its training, without folders of the machine."""
    exported = {key: config[key] for key in _EXPORTED if key in config}
    source = {key: None if key in checkpoint.DATA_PATHS else value for key, value in config["data"]["source"].items()}
    exported["data"] = {**config["data"], "source": source}
    exported["module"] = {key: config["module"][key] for key in ("vae", "objective")}
    trainer = config.get("trainer") or {}
    exported["trainer"] = {key: trainer[key] for key in _TRAINER_EXPORTED if key in trainer}
    return exported
