"""The decoder's graph, computed by the JavaScript that pages compute it with, is the decoder."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor, nn

from tests.conftest import composed
from tests.test_configs import options
from vaelab.models.vae import VAE
from vaelab.runtime.errors import UserError
from vaelab.visualization import explorer
from vaelab.visualization.explorer.graph import Graph, trace, translated

TOLERANCE = 1e-4
_PLAYWRIGHT = importlib.util.find_spec("playwright")
_ITS_NODE = str(Path(_PLAYWRIGHT.origin).parent / "driver" / "node") if _PLAYWRIGHT and _PLAYWRIGHT.origin else ""
NODE = shutil.which("node") or shutil.which(_ITS_NODE)
RUNNER = """
const fs = require("fs"), { Decoder } = require(process.argv[1]);
const bytes = fs.readFileSync("weights").buffer;
const decoder = new Decoder(JSON.parse(fs.readFileSync("graph.json")), new Float32Array(bytes));
const inputs = JSON.parse(fs.readFileSync("inputs.json"));
fs.writeFileSync("outputs.json", JSON.stringify(inputs.map(([z, y]) => Array.from(decoder.decode(z, y)))));
"""

# A likelihood sees of a network nothing but its outputs, one or two for each channel: every network with one likelihood
# and every likelihood with one network stand for all pairs.
PAIRS = [
    *((model, "mse") for model in options("model")),
    ("conv", "gaussian_per_pixel"),
    *(("mlp", loss) for loss in options("loss") if loss != "mse"),
]


def in_javascript(graph: Graph, folder: Path, *inputs: Tensor) -> Tensor:
    """What ``decoder.js`` makes of inputs, one after the other."""
    if NODE is None:
        pytest.skip("needs node on the PATH")
    (folder / "graph.json").write_text(json.dumps(graph.as_json()))
    graph.weights.astype("<f4").tofile(folder / "weights")
    with (folder / "weights").open("ab") as file:
        file.write(bytes(max(0, 65536 - file.tell())))  # Node gives small files a part of a larger buffer
    (folder / "inputs.json").write_text(
        json.dumps([list(row) for row in zip(*(i.tolist() for i in inputs), strict=True)])
    )
    script = Path(explorer.__file__).with_name("decoder.js")
    subprocess.run([NODE, "-e", RUNNER, str(script)], cwd=folder, check=True, timeout=60)
    return torch.tensor(json.loads((folder / "outputs.json").read_text()))


def assert_same(graph: Graph, module: nn.Module, folder: Path, *inputs: Tensor) -> None:
    with torch.no_grad():
        expected = torch.cat([module(*(part[None] for part in row)) for row in zip(*inputs, strict=True)]).flatten(1)
    found = in_javascript(graph, folder, *inputs)
    assert float((found - expected).abs().max()) < TOLERANCE
    assert float(expected.std()) > 1e-3


def a_vae(*overrides: str) -> VAE:
    torch.manual_seed(1)
    vae = instantiate(
        composed("train", "run_dir=/nowhere", "latent_dim=6", *overrides).module.vae, _convert_="all"
    ).eval()
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter.mul_(2)  # networks begin with images that are all alike
    return vae


class Shown(nn.Module):
    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.vae.decode(z, y).mean


@pytest.mark.parametrize(("model", "loss"), PAIRS)
def test_javascript_agrees_with_torch(model: str, loss: str, tmp_path: Path) -> None:
    vae = a_vae(f"model={model}", f"loss={loss}")
    assert_same(trace(vae), Shown(vae), tmp_path, 2 * torch.randn(5, 6))


@pytest.mark.parametrize("model", ["conv", "resnet"])
def test_colour_odd_sizes_and_classes(model: str, tmp_path: Path) -> None:
    vae = a_vae(f"model={model}", "data=cifar10", "data.image_shape=[3,13,10]", "conditional=true")
    assert vae.classes == 10
    weights = torch.eye(10)[:4] * 0.7 + torch.eye(10)[1:5] * 0.3
    assert_same(trace(vae), Shown(vae), tmp_path, torch.randn(4, 6), weights)


class Activations(nn.Module):
    """Every activation of torch.nn that needs no argument and makes no other shape."""

    def __init__(self) -> None:
        super().__init__()
        made: list[nn.Module] = []
        for name in dir(nn.modules.activation):
            kind = getattr(nn.modules.activation, name)
            if isinstance(kind, type) and kind.__module__ == nn.modules.activation.__name__:
                if name in ("GLU", "MultiheadAttention", "Softmax2d", "Threshold"):
                    continue
                made.append(kind(dim=1) if "Softm" in name or name == "LogSoftmax" else kind())
        self.all = nn.ModuleList(made)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([activation(x) for activation in self.all], 1)


def test_every_activation(tmp_path: Path) -> None:
    module = Activations().eval()
    assert len(module.all) > 20
    assert_same(translated(module, (torch.zeros(1, 40),)), module, tmp_path, torch.linspace(-30, 30, 200).view(5, 40))


class Layers(nn.Module):
    """What the project's own networks do not use, but those of others may."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(7, 4 * 5 * 6, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2)
        self.up = nn.ConvTranspose2d(6, 4, (3, 4), (2, 3), (1, 0), (1, 2), 2, False, (1, 2))
        self.plain = nn.GroupNorm(2, 4, affine=False)

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm(self.dense(z).view(-1, 4, 5, 6))
        x = self.plain(self.up(self.grouped(F.pad(x, (1, 2, 0, 1), value=0.5))))
        x = F.pixel_shuffle(F.interpolate(x, scale_factor=2, mode="nearest"), 2)
        x = torch.where(x > 0.1, x.flip(-1), x.roll(1, 2)).clamp(-2, 1.5).transpose(2, 3)
        first, second = x[..., 1:9].chunk(2, -1)
        return (first.square() + second.mean((2, 3), keepdim=True)) / second.abs().amax(1, keepdim=True).add(1)


def test_layers_that_others_use(tmp_path: Path) -> None:
    module = Layers().eval()
    nn.init.normal_(module.norm.running_mean)  # type: ignore[arg-type]
    assert_same(translated(module, (torch.zeros(1, 7),)), module, tmp_path, torch.randn(4, 7))


def test_an_operation_that_is_missing_is_named() -> None:
    class Sum(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.cumsum(1)

    with pytest.raises(UserError, match="cannot be explored: its decoder or likelihood uses cumsum, which") as refused:
        translated(Sum(), (torch.zeros(1, 3),))
    assert "\n" not in str(refused.value)


def test_images_that_do_not_depend_on_latents_are_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.zeros(1, 1, 2, 2)

    with pytest.raises(UserError, match="there is nothing to explore"):
        translated(Fixed(), (torch.zeros(1, 3),))


def test_a_number_that_is_used_often_is_kept_once() -> None:
    vae = a_vae("model=mlp", "loss=mse", "data=digits")
    graph = trace(vae)
    assert graph.weights.size == sum(parameter.numel() for parameter in vae.decoder.parameters())
