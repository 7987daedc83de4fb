"""Every file of the configuration tree composes, builds and, wherever two choices can meet, takes a step."""

import itertools
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.conftest import ROOT, composed
from vaelab.training.lightning_module import VAEModule

CONFIGS = ROOT / "configs"
GROUPS = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name != "hydra")


@cache
def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


ALL = [(group, option) for group in GROUPS for option in options(group)]
MODELS = ("model", "loss", "prior", "posterior", "objective")
CLOSED_FORMS = {("diagonal_gaussian", "standard_normal"), ("full_gaussian", "standard_normal")}


def _override(group: str, option: str) -> str:
    """Groups that are empty by default are added to the defaults' null."""
    return f"{group}={option}"


def _module(*overrides: str) -> VAEModule:
    module = instantiate(composed("train", "run_dir=/nowhere", *overrides).module, _convert_="all")
    assert isinstance(module, VAEModule)
    module.objective.data_size = 1000  # as a trainer does
    return module


SIZES = ["run_dir=/nowhere", "data.image_shape=[2,13,15]", "latent_dim=3"]


def _vae_of(*choices: str) -> dict[str, Any]:
    """The configuration of the module that Hydra composes of some choices, on small images."""
    plain = OmegaConf.to_container(composed("train", *SIZES, *choices).module, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


_composed = cache(_vae_of)


def _leaves(node: Any, key: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The settings of a nested dict by their full keys."""
    if not isinstance(node, dict) or not node:
        return {key: node}
    return {leaf: value for name, child in node.items() for leaf, value in _leaves(child, (*key, name)).items()}


def _put_together(*choices: str) -> dict[str, Any]:
    """What Hydra composes of all these choices, from what it composes of each alone: fifty times as fast as Hydra.

    Each choice is of another group and has settings of its own, so that what each changes can be taken together.
    """
    defaults = _leaves(_composed())
    leaves = dict(defaults)
    for choice in choices:
        chosen = _leaves(_composed(choice))
        for key in defaults.keys() - chosen.keys():
            leaves.pop(key, None)
        leaves |= {key: value for key, value in chosen.items() if key not in defaults or defaults[key] != value}
    whole: dict[str, Any] = {}
    for key, value in leaves.items():
        node = whole
        for name in key[:-1]:
            node = node.setdefault(name, {})
        node[key[-1]] = deepcopy(value)
    return whole


def _assembled(*choices: str, **settings: Any) -> VAEModule:
    """The module of some choices, and of some settings of its objective."""
    config = _put_together(*choices)
    config["objective"] |= settings
    module = instantiate(config, _convert_="all")
    assert isinstance(module, VAEModule)
    module.objective.data_size = 1000  # as a trainer does
    return module


@pytest.mark.parametrize("number", range(10))
def test_choices_are_put_together_as_hydra_composes_them(number: int) -> None:
    """One option of every group at a time, until all have had their turn: where settings met, this would differ."""
    choices = [f"{group}={options(group)[number % len(options(group))]}" for group in MODELS]
    assert _put_together(*choices) == _vae_of(*choices)


def test_no_group_has_more_options_than_have_their_turn() -> None:
    assert max(len(options(group)) for group in MODELS) <= 10


def _without_closed_form(*overrides: str) -> bool:
    """Whether the posterior and the prior of these choices have no closed form of their divergence."""
    chosen = {"posterior": "diagonal_gaussian", "prior": "standard_normal", **dict(o.split("=") for o in overrides)}
    return (chosen["posterior"], chosen["prior"]) not in CLOSED_FORMS


def test_there_is_what_the_readme_promises() -> None:
    promised = {
        "model": {"mlp", "conv", "resnet"},
        "loss": {
            *("bce", "mse", "gaussian", "gaussian_learned", "gaussian_per_pixel", "gaussian_optimal", "laplace"),
            *("continuous_bernoulli", "discretized_logistic"),
        },
        "objective": {
            *("elbo", "elbo_sampled", "autoencoder", "beta", "beta_tc", "capacity", "free_bits", "mmd", "iwae", "dreg")
        },
        "prior": {"standard_normal", "gaussian_mixture", "vampprior", "realnvp"},
        "posterior": {"diagonal_gaussian", "full_gaussian", "iaf"},
        "data": {"digits", "mnist", "fashion_mnist", "cifar10", "image_folder"},
        "optimizer": {"adam", "adamw", "sgd", "rmsprop"},
        "scheduler": {"none", "cosine", "plateau"},
        "accelerator": {
            *("auto", "cpu", "cpu_bf16", "gpu", "gpu_bf16", "gpu_fp16", "multi_gpu", "multi_gpu_bf16", "ddp_cpu"),
            "multi_node",
        },
        "logger": {"wandb", "csv", "tensorboard", "many", "none"},
        "callbacks": {"default", "early_stopping", "gallery", "none"},
    }
    for group, names in promised.items():
        assert names <= set(options(group)), group


@pytest.mark.parametrize(("group", "option"), ALL, ids=[f"{group}={option}" for group, option in ALL])
def test_every_file_composes_and_builds(group: str, option: str, tmp_path: Path) -> None:
    cfg = composed("train", f"run_dir={tmp_path}", _override(group, option))
    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(instantiate(cfg.module, _convert_="all"), VAEModule)
    instantiate(cfg.data, _convert_="all")
    for node in (*cfg.callbacks.values(), *cfg.logger.values()):
        if node:
            instantiate(node, _convert_="all")
    if "gpu" not in plain["trainer"]["accelerator"]:
        instantiate(cfg.trainer, logger=False, enable_checkpointing=False, enable_progress_bar=False, _convert_="all")


@pytest.mark.parametrize("data", options("data"))
def test_of_a_data_set_a_module_has_its_images_shape_and_no_more(data: str) -> None:
    """Which is why a model that learns one of them by every loss learns all of them."""
    assert _vae_of(f"data={data}") == _composed()


@pytest.mark.parametrize(("model", "loss"), list(itertools.product(options("model"), options("loss"))))
def test_every_model_learns_by_every_loss(model: str, loss: str) -> None:
    """On tiny images of odd size and several channels, so that no size is taken for granted."""
    module = _assembled(f"model={model}", f"loss={loss}")
    terms = module.objective(module.vae, torch.rand(4, 2, 13, 15))
    terms["loss"].backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert module.optimizer is not None
    module.optimizer(module.parameters()).step()
    assert module.objective(module.vae, torch.rand(4, 2, 13, 15))["loss"].isfinite()


NOT_DIAGONAL = {
    *("posterior=full_gaussian", "posterior=iaf", "prior=gaussian_mixture", "prior=vampprior", "prior=realnvp")
}
# What else two choices cannot do together, and what the refusal says to type.
REFUSED = {
    **{(other, "objective=beta_tc"): "objective=beta" for other in NOT_DIAGONAL},
    **{(other, "objective=free_bits"): "module.objective.per=total" for other in NOT_DIAGONAL},
    **{(other, "objective=mmd"): "module.objective.kl_weight=1" for other in NOT_DIAGONAL if "prior" in other},
    ("posterior=iaf", "objective=dreg"): "objective=iwae",
}
PAIRS = [
    (f"{first}={a}", f"{second}={b}")
    for first, second in itertools.combinations(MODELS, 2)
    for a, b in itertools.product(options(first), options(second))
]


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda typed: typed)
def test_every_pair_of_choices_takes_a_step(first: str, second: str) -> None:
    x = torch.rand(4, 2, 13, 15).round()
    choices, settings = [first, second], {}
    if _without_closed_form(first, second):
        module = _assembled(*choices, divergence="analytic")
        with pytest.raises(NotImplementedError, match="No KL"):
            module.objective(module.vae, x)
        settings["divergence"] = "sampled"
    module = _assembled(*choices, **settings)
    if (first, second) in REFUSED:
        instead = REFUSED[first, second]
        with pytest.raises(NotImplementedError, match=re.escape(instead)):
            module.objective(module.vae, x)
        key, _, value = instead.partition("=")
        if key == "objective":
            choices[1] = instead
        else:
            settings[key.removeprefix("module.objective.")] = OmegaConf.create(f"value: {value}").value
        module = _assembled(*choices, **{**settings, "divergence": "sampled"})
    loss = module.objective(module.vae, x)["loss"]
    loss.backward()
    assert loss.isfinite()
    for name, parameter in module.named_parameters():
        # A plain autoencoder has no use for a prior but to report the bound.
        untrained = second == "objective=autoencoder" and name.startswith("vae.prior.")
        assert (parameter.grad is None) == untrained, name


@pytest.mark.parametrize(("group", "option"), [pair for pair in ALL if pair[0] in MODELS])
def test_every_choice_can_be_conditional(group: str, option: str) -> None:
    overrides = [_override(group, option), "conditional=true", "data.image_shape=[2,13,15]", "latent_dim=3"]
    if _without_closed_form(f"{group}={option}"):
        overrides.append("module.objective.divergence=sampled")
    module = _module(*overrides)
    x, y = torch.rand(4, 2, 13, 15).round(), torch.tensor([0, 9, 3, 3])
    module.objective(module.vae, x, y)["loss"].backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert module.vae.sample(12).shape == (12, 2, 13, 15)
    with torch.no_grad():
        z = torch.randn(4, 3)
        assert not torch.equal(module.vae.decode(z, y).mean, module.vae.decode(z, (y + 1) % 10).mean)
        weights = torch.nn.functional.one_hot(y, 10).float()
        torch.testing.assert_close(module.vae.decode(z, y).mean, module.vae.decode(z, weights).mean)
    with pytest.raises(ValueError, match="labels"):
        module.objective(module.vae, x)


@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_every_optimizer_learns_one_batch(optimizer: str) -> None:
    module = _module("model=mlp", f"optimizer={optimizer}", "data.image_shape=[1,6,6]", "latent_dim=4")
    x = torch.rand(8, 1, 6, 6)
    assert module.optimizer is not None
    steps = module.optimizer(module.parameters())
    losses = []
    for _ in range(100):
        steps.zero_grad()
        loss = module.objective(module.vae, x)["loss"]
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < sum(losses[:10])
