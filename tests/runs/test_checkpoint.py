"""Checkpoints are found, rebuild their model alone, and run nothing that they bring along."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.nn import ModuleDict

from tests.conftest import composed
from tests.test_configs import options
from vaelab.runs import checkpoint
from vaelab.runtime.errors import UserError


def test_a_run_a_checkpoint_and_a_preference(finished_run: Path) -> None:
    assert checkpoint.find(finished_run).name == "best.ckpt"
    assert checkpoint.find(str(finished_run), prefer="last").name == "last.ckpt"
    assert checkpoint.find(finished_run / "checkpoints" / "last.ckpt").name == "last.ckpt"


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="does not exist: type a run folder"):
        checkpoint.find(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no checkpoints/best.ckpt"):
        checkpoint.find(tmp_path)
    monkeypatch.setattr(checkpoint, "ROOT", tmp_path)
    with pytest.raises(UserError, match="no run has finished an epoch yet"):
        checkpoint.find("latest")


def test_the_model_is_rebuilt_from_the_checkpoint_alone(finished_run: Path) -> None:
    path = checkpoint.find(finished_run)
    vae, objective, config = checkpoint.rebuild(path)
    assert not vae.training
    assert not objective.training
    assert config["latent_dim"] == 2
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert all(
        torch.equal(weights[name], value)
        for name, value in ModuleDict({"vae": vae, "objective": objective}).state_dict().items()
    )
    assert vae.sample(3).shape == (3, 1, 28, 28)
    datamodule = checkpoint.rebuild_data(config, path)
    datamodule.setup()
    assert len(datamodule.splits["test"].images) == 64


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def test_a_pickled_payload_does_not_run(finished_run: Path, tmp_path: Path) -> None:
    contents = torch.load(checkpoint.find(finished_run), weights_only=True)
    contents["surprise"] = Payload(tmp_path / "executed")
    torch.save(contents, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="was not loaded, because it holds more than tensors") as caught:
        checkpoint.rebuild(tmp_path / "foreign.ckpt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


TARGETS = [
    "os.system",
    "builtins.eval",
    "torch.hub.load",
    "vaelab.commands.cli.os.system",
    "vaelab.runs.checkpoint.importlib.import_module",
    "vaelab.data.digits.np.load",
    "vaelab.data.mnist.Path",
    "vaelab.models.networks.mlp.dense",  # another module's
    "vaelab.commands.train.train",
    "vaelab.models.networks.conv.ConvEncoder.__init__",
    "vaelab.models.networks.nothing.Encoder",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("where", ["encoder", "likelihood", "data"])
def test_targets_outside_the_package_are_not_built(finished_run: Path, tmp_path: Path, target: str, where: str) -> None:
    contents = torch.load(checkpoint.find(finished_run), weights_only=True)
    config = contents["vaelab"]["config"]
    part = config["data"]["source"] if where == "data" else config["module"]["vae"][where]
    part["_target_"] = target
    path = tmp_path / "foreign.ckpt"
    torch.save(contents, path)
    refused = pytest.raises(UserError, match="was refused: its configuration names")
    if where == "data":
        with refused:
            checkpoint.rebuild_data(config, path)
    else:
        with refused:
            checkpoint.rebuild(path)


@pytest.mark.parametrize("hidden", [({"_target_": "os.system"},), {1: {"_target_": "os.system"}}, torch.Size([1])])
def test_nothing_hides_in_other_containers(finished_run: Path, tmp_path: Path, hidden: Any) -> None:
    contents = torch.load(checkpoint.find(finished_run), weights_only=True)
    contents["vaelab"]["config"]["module"]["vae"]["image_shape"] = hidden
    torch.save(contents, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="was refused: its configuration contains a"):
        checkpoint.rebuild(tmp_path / "foreign.ckpt")


def test_interpolations_are_not_resolved(finished_run: Path, tmp_path: Path) -> None:
    contents = torch.load(checkpoint.find(finished_run), weights_only=True)
    contents["vaelab"]["config"]["module"]["vae"]["latent_dim"] = "${oc.env:WANDB_API_KEY}"
    torch.save(contents, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="contains an interpolation"):
        checkpoint.rebuild(tmp_path / "foreign.ckpt")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "cannot be read as a checkpoint|was not loaded"),
        (lambda data: b"", "cannot be read as a checkpoint|was not loaded"),
        (lambda data: b"hello" * 1000, "cannot be read as a checkpoint|was not loaded"),
    ],
)
def test_damaged_files_are_refused(
    finished_run: Path, tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "damaged.ckpt"
    path.write_bytes(damage(checkpoint.find(finished_run).read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.rebuild(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "contents", [{}, [1, 2], {"state_dict": {}}, {"state_dict": {}, "vaelab": {"format": 1}}, torch.zeros(3)]
)
def test_other_files_of_torch_are_refused(tmp_path: Path, contents: Any) -> None:
    torch.save(contents, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        checkpoint.rebuild(tmp_path / "other.ckpt")


def test_newer_formats_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "vaelab": {"format": 2}}, tmp_path / "newer.ckpt")
    with pytest.raises(UserError, match="another version of this project"):
        checkpoint.rebuild(tmp_path / "newer.ckpt")


def _zipped(source: Path, target: Path, compression: int, **entries: bytes) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        for name, content in entries.items():
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/{name}", content)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(finished_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.ckpt"
    _zipped(checkpoint.find(finished_run), path, zipfile.ZIP_DEFLATED, zeros=bytes(50_000_000))
    assert path.stat().st_size < 10_000_000
    with pytest.raises(UserError, match=r"bytes claim to hold 5\d,\d{3},\d{3}\)"):
        checkpoint.rebuild(path)


def test_torch_s_format_of_old_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "vaelab": {}}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        checkpoint.rebuild(tmp_path / "old.ckpt")


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [("encoder", "hidden_sizes", [10**9, 10**9]), ("prior", "components", 10**12), (None, "latent_dim", 10**12)],
)
def test_a_configuration_that_asks_for_more_memory_than_there_are_weights_is_refused(
    finished_run: Path, tmp_path: Path, part: str | None, setting: str, value: Any
) -> None:
    contents = torch.load(checkpoint.find(finished_run), weights_only=True)
    vae = contents["vaelab"]["config"]["module"]["vae"]
    if part == "prior":
        vae["prior"] = {"_target_": "vaelab.models.priors.GaussianMixture", "_partial_": True}
    (vae if part is None else vae[part])[setting] = value
    torch.save(contents, tmp_path / "greedy.ckpt")
    with pytest.raises(UserError, match="another model"):
        checkpoint.rebuild(tmp_path / "greedy.ckpt")


GROUPS = ("model", "loss", "prior", "posterior", "objective", "experiment")
CHOICES = [f"{group}={option}" for group in GROUPS for option in options(group)]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_built_again(choice: str, tmp_path: Path) -> None:
    config = OmegaConf.to_container(composed("train", choice, "latent_dim=3").module, resolve=True)
    assert isinstance(config, dict)
    vae = instantiate(config["vae"], _convert_="all")
    contents = {
        "state_dict": {f"vae.{name}": value for name, value in vae.state_dict().items()},
        "vaelab": {"format": 1, "config": {"module": config}},
    }
    torch.save(contents, tmp_path / "any.ckpt")
    rebuilt = checkpoint.rebuild(tmp_path / "any.ckpt")
    for name, value in vae.state_dict().items():
        assert torch.equal(rebuilt.vae.state_dict()[name], value), name


def test_nothing_is_written_where_only_a_checkpoint_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    source = {"_target_": "vaelab.data.mnist.MNIST", "data_dir": str(tmp_path / "made" / "up")}
    data = {"_target_": "vaelab.data.datamodule.ImageDataModule", "image_shape": [1, 28, 28], "source": source}
    path = tmp_path / "any.ckpt"
    assert checkpoint.rebuild_data({"data": data}, path).source.data_dir == tmp_path
    raw = tmp_path / "made" / "up" / "MNIST" / "raw"
    raw.mkdir(parents=True)  # an existing folder without the data set, where it would be downloaded to
    assert checkpoint.rebuild_data({"data": data}, path).source.data_dir == tmp_path
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").touch()
    assert checkpoint.rebuild_data({"data": data}, path).source.data_dir == tmp_path / "made" / "up"
    assert checkpoint.rebuild_data({"data": data}, path, "elsewhere").source.data_dir == Path("elsewhere")
