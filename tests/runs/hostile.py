"""Checkpoints that somebody has made to do harm, each from an honest one. Few bytes, no training."""

import codecs
import copy
import functools
import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.conftest import composed

Contents = dict[str, Any]
HARM: dict[str, Callable[[Contents, Path], Any]] = {}


@functools.cache
def _config() -> Any:
    sizes = [f"module.vae.{part}.hidden_sizes=[4]" for part in ("encoder", "decoder")]
    small = ("model=mlp", *sizes, "latent_dim=2", "data.limit=16", "run_dir=somewhere")
    return OmegaConf.to_container(composed("train", *small), resolve=True)


def honest() -> Contents:
    """The contents of a checkpoint of a small model that was never trained."""
    config = copy.deepcopy(_config())
    vae = instantiate(config["module"]["vae"], _convert_="all")
    used = {key: config[key] for key in ("choices", "latent_dim", "data", "trainer", "module") if key in config}
    weights = {f"vae.{name}": value for name, value in vae.state_dict().items()}
    return {"state_dict": weights, "global_step": 0, "vaelab": {"format": 1, "config": used}}


class Call:
    """Something whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def _harm(function: Callable[[Contents, Path], Any]) -> Callable[[Contents, Path], Any]:
    HARM[function.__name__.removeprefix("_")] = function
    return function


def _sets(where: str, value: Any) -> None:
    """A setting of the configuration, or all of it, that has this value. ``OUTSIDE`` stands for a new folder."""

    def harm(contents: Contents, outside: Path) -> None:
        *path, last = where.split(".")
        node = contents["vaelab"]["config"]
        for key in path:
            node = node[key]
        node[last] = _within(value, outside)

    HARM[f"{where}={str(value)[:60]}"] = harm


def _within(value: Any, outside: Path) -> Any:
    if isinstance(value, dict):
        return {key: _within(child, outside) for key, child in value.items()}
    return str(outside) if value == "OUTSIDE" else value


VAE, DATA = "module.vae", "data.source"
DIGITS = {"_target_": "vaelab.data.digits.Digits", "cache_dir": "OUTSIDE"}
RENDER = {"_target_": "vaelab.data.digits.load_digits", "split": "train", "cache_dir": "OUTSIDE"}
REALNVP = {"_target_": "vaelab.models.priors.RealNVP", "_partial_": True}

# What a checkpoint may name: parts, by kind and place, with keyword settings only.
_sets(f"{VAE}.likelihood", RENDER)
_sets(f"{VAE}.likelihood", DIGITS)
_sets(f"{VAE}.likelihood", {"_target_": "vaelab.models.likelihoods.Likelihood"})
_sets(f"{VAE}.likelihood", {"_target_": "vaelab.models.likelihoods.SquaredError", "weight": RENDER})
_sets(f"{VAE}.encoder", {**RENDER, "_partial_": True})
_sets(f"{VAE}.initialize", RENDER)
_sets(f"{VAE}.initialize", {**RENDER, "_partial_": True})
_sets(f"{VAE}.classes", DIGITS)
_sets(f"{VAE}.image_shape", [1, 28, {"a": RENDER}])
_sets(f"{VAE}.extra", RENDER)
_sets(f"{VAE}._args_", [[1, 28, 28]])
_sets(f"{VAE}._recursive_", False)
_sets(f"{VAE}._convert_", "none")
_sets(f"{VAE}.prior._partial_", False)
_sets(f"{VAE}.likelihood._partial_", True)
_sets("module.objective", {"_target_": "vaelab.data.digits.Digits", "cache_dir": "OUTSIDE"})
_sets("module.objective.warmup", RENDER)
_sets("module.vae._target_", "vaelab.data.datamodule.ImageDataModule")
_sets("module.vae._target_", "vaelab.models.vae.VAE\n\x1b[31m<script>[bold]" + "a" * 10_000)
_sets("module.vae._target_", ["vaelab.models.vae.VAE"])

# Malformed configurations.
_MALFORMED: dict[str, tuple[Any, ...]] = {
    "module": ([], None, {}),
    "module.vae": (None, [], "text", {}),
    "module.objective": (None, {"_target_": "vaelab.objectives.Objective"}),
    f"{VAE}.encoder": (None, 5),
    f"{VAE}.likelihood": (None,),
    f"{VAE}.latent_dim": (None, 0, -1, 10**18, 10**9, 2.0, math.nan, "2", True, [2], "${latent_dim}"),
    f"{VAE}.image_shape": (None, [], [1, 28], [1, 28, -28], [1, 10**10, 10**10], [1] * 10**5, "abc"),
    f"{VAE}.encoder.hidden_sizes": ([10**9, 10**9], [4] * 10**4, [0], [[4]], None, {"a": 1}),
    f"{VAE}.encoder.activation": ("Module", "os.system", 3, None),
    f"{VAE}.classes": (10**9, -1, "ten"),
    f"{VAE}.prior": (
        {**REALNVP, "couplings": 10**9},
        {**REALNVP, "couplings": 10**9, "hidden_sizes": []},
        {**REALNVP, "hidden_sizes": [10**6, 10**6]},
        {"_target_": "vaelab.models.priors.GaussianMixture", "_partial_": True, "components": 10**12},
        {"_target_": "vaelab.models.vae.VAE", "_partial_": True},
    ),
    f"{VAE}.posterior": (
        {
            "_target_": "vaelab.models.posteriors.InverseAutoregressiveFlow",
            "_partial_": True,
            "steps": 10**9,
            "hidden_sizes": [1],
        },
        {"_target_": "vaelab.models.posteriors.FullGaussian", "_partial_": False},
    ),
    f"{VAE}.decoder": (
        {
            "_target_": "vaelab.models.networks.resnet.ResNetDecoder",
            "_partial_": True,
            "channels": [1],
            "blocks": 10**9,
        },
    ),
    "choices": ([], {"data": []}, "text"),
    "data": ([], "text"),
    "trainer": ([], {"precision": []}),
    "latent_dim": ("2", []),
}
for _where, _values in _MALFORMED.items():
    for _value in _values:
        _sets(_where, _value)


@_harm
def _config_missing(contents: Contents, _: Path) -> None:
    contents["vaelab"]["config"] = None


@_harm
def _format_is_true(contents: Contents, _: Path) -> None:
    contents["vaelab"]["format"] = True


@_harm
def _lists_in_lists(contents: Contents, _: Path) -> None:
    node: list[Any] = []
    for _i in range(150):
        node = [node]
    contents["vaelab"]["config"]["module"]["vae"]["image_shape"] = node


@_harm
def _lists_in_lists_elsewhere(contents: Contents, _: Path) -> None:
    node: list[Any] = []
    for _i in range(200):
        node = [node]
    contents["callbacks"] = {"x": node}


@_harm
def _a_list_in_itself(contents: Contents, _: Path) -> None:
    node: list[Any] = [1]
    node.append(node)
    contents["vaelab"]["config"]["module"]["vae"]["image_shape"] = node


@_harm
def _a_dictionary_in_itself(contents: Contents, _: Path) -> None:
    contents["vaelab"]["config"]["again"] = contents["vaelab"]["config"]


@_harm
def _shared_lists(contents: Contents, _: Path) -> None:
    node: list[Any] = ["a"]
    for _i in range(40):
        node = [node, node]
    contents["vaelab"]["config"]["choices"] = {"data": "x", "more": node}


@_harm
def _shared_lists_elsewhere(contents: Contents, _: Path) -> None:
    node: list[Any] = ["a"]
    for _i in range(40):
        node = [node] * 10
    contents["loops"] = node


@_harm
def _expanded_zeros(contents: Contents, _: Path) -> None:
    vae = contents["vaelab"]["config"]["module"]["vae"]
    vae["encoder"]["hidden_sizes"] = vae["decoder"]["hidden_sizes"] = [40_000, 40_000]
    with torch.device("meta"):
        model = instantiate(vae, _convert_="all")
    weights = {f"vae.{name}": torch.zeros(()).expand(value.shape) for name, value in model.state_dict().items()}
    contents["state_dict"] = weights


@_harm
def _one_storage_for_many(contents: Contents, _: Path) -> None:
    vae = contents["vaelab"]["config"]["module"]["vae"]
    shared, size = torch.zeros(500, 500), 500
    vae["encoder"]["hidden_sizes"] = vae["decoder"]["hidden_sizes"] = [size] * 100
    with torch.device("meta"):
        model = instantiate(vae, _convert_="all")
    contents["state_dict"] = {
        f"vae.{name}": shared if value.shape == shared.shape else torch.zeros(value.shape)
        for name, value in model.state_dict().items()
    }


@_harm
def _a_large_image(contents: Contents, _: Path) -> None:
    vae, layers = contents["vaelab"]["config"]["module"]["vae"], 7
    networks = "vaelab.models.networks.conv.Conv"
    channels, strides = [1] * (layers - 1), [10] * layers
    vae["image_shape"] = [1, 10**layers, 10**layers]
    vae["encoder"] = {"_target_": f"{networks}Encoder", "channels": [1] * layers, "kernel_sizes": 1, "strides": 10}
    vae["decoder"] = {"_target_": f"{networks}Decoder", "channels": channels, "kernel_sizes": 10, "strides": strides}
    for part in ("encoder", "decoder"):
        vae[part]["_partial_"] = True
    model = instantiate(vae, _convert_="all")
    contents["state_dict"] = {f"vae.{name}": value for name, value in model.state_dict().items()}


@_harm
def _a_billion_samples(contents: Contents, _: Path) -> None:
    contents["vaelab"]["config"]["module"]["objective"]["samples"] = 10**9


def _weight(name: str, value: Callable[[torch.Tensor], Any]) -> None:
    def harm(contents: Contents, _: Path) -> None:
        key = "vae.decoder.outputs.weight"
        contents["state_dict"][key] = value(contents["state_dict"][key])

    HARM[f"weight: {name}"] = harm


_weight("a list", lambda value: value.tolist())
_weight("none", lambda value: None)
_weight("complex", lambda value: value + 1j)
_weight("integers", lambda value: value.long())
_weight("truth", lambda value: value > 0)
_weight("not a number", lambda value: value * math.nan)
_weight("sparse", lambda value: value.to_sparse())
_weight("meta", lambda value: torch.empty(10**6, 10**6, device="meta"))
_weight("shape", lambda value: value.T)
_weight("a tensor class", lambda value: Call(torch.FloatTensor, 10**10))


def _state(name: str, value: Any) -> None:
    def harm(contents: Contents, _: Path) -> None:
        contents["state_dict"] = value

    HARM[f"state_dict: {name}"] = harm


_state("a list", [1, 2])
_state("none", None)
_state("empty", {})
_state("numbers as names", {1: torch.zeros(3)})


def _calls(name: str, call: Any) -> None:
    def harm(contents: Contents, _: Path) -> None:
        contents["surprise"] = call

    HARM[f"calls: {name}"] = harm


_doubled: Any = "a" * 100
for _ in range(30):
    _doubled = Call(codecs.encode, _doubled, "utf-32")
_many = [(i, i) for i in range(2000)]
_calls("bytearray", Call(bytearray, 10**10))
_calls("codecs", _doubled)
_calls("copies", [Call(OrderedDict, _many) for _ in range(2000)])
_calls("tensors", Call(torch.DoubleTensor, 10**10))
_calls("storage", Call(torch.FloatStorage, 10**10))
_calls("integer", 10**600)
