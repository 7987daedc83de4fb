"""A compiled step computes what the step computes."""

import shutil

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from tests.conftest import composed
from tests.test_choices import SINGLE, WITH_CLOSED_FORM
from vaelab.commands.config_validation import check_training
from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.errors import UserError
from vaelab.training.lightning_module import VAEModule


def _module(*overrides: str) -> VAEModule:
    torch.manual_seed(1)
    small = ["model=mlp", "latent_dim=2", "data.image_shape=[1,28,28]", "data.classes=10", "run_dir=."]
    chosen = {override.partition("=")[0]: override for override in (*small, *overrides)}
    module: VAEModule = instantiate(composed("train", *chosen.values()).module, _convert_="all")
    module.objective.data_size = 100
    return module


def _step(module: VAEModule) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """The loss, the figures and the gradients of a step on the same images with the same noise."""
    torch.manual_seed(2)
    x, y = torch.rand(8, 1, 28, 28).round(), torch.arange(8)
    loss, sums = module._step(x, y, Shard.of(8))
    loss.backward()
    return loss.detach(), sums, [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("choice", [*SINGLE, "conditional=true"])
def test_every_choice_is_one_graph_with_the_same_gradients(choice: str) -> None:
    group, _, option = choice.partition("=")
    sampled = option not in WITH_CLOSED_FORM.get(group, (option,))
    overrides = [choice, *(["objective=elbo_sampled"] if sampled else [])]
    expected = _step(_module(*overrides))
    module = _module(*overrides)
    torch.compiler.reset()
    # Traced as for any compiler, with its derivative, but computed by torch's own kernels: compiling takes a minute.
    module._step = torch.compile(module._compute_step, fullgraph=True, dynamic=False, backend="aot_eager")
    torch.testing.assert_close(_step(module), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's compiler uses it
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: install g++")
def test_compiled_code_gives_the_same_figures() -> None:
    expected, module = _step(_module()), _module()
    torch.compiler.reset()
    module.compile_steps()
    torch.testing.assert_close(_step(module), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_a_step_that_cannot_be_compiled_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module()
    monkeypatch.setattr(
        module.objective, "forward", lambda vae, x, y, shard: {"loss": vae.encode(x).centre[x.sum().item() :]}
    )
    torch.compiler.reset()
    module.compile_steps()
    with pytest.raises(UserError, match="type compile=false"):
        _step(module)


def test_a_way_to_compile_that_does_not_exist() -> None:
    with pytest.raises(UserError, match="compile=fast: it must be true, false, reduce-overhead or max-autotune"):
        check_training(composed("train", "compile=fast"))
