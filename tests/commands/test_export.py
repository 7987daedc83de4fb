"""Trained models as files for elsewhere: that they are the same models, and that nothing else is loaded from them."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

import vaelab
from tests.conftest import ROOT, composed
from tests.test_configs import options
from vaelab.commands import export, model_card
from vaelab.commands.export import _largest, example, portable, trace
from vaelab.commands.generate import generate
from vaelab.commands.train import train
from vaelab.models.traceable import Decoder, Encoder
from vaelab.models.vae import VAE
from vaelab.runs import api, checkpoint
from vaelab.runs.run_folder import RunFolder
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import UserError

PARTS = [
    *((Encoder, f"model={name}") for name in options("model")),
    *((Encoder, f"posterior={name}") for name in options("posterior")),
    *((Decoder, f"model={name}") for name in options("model")),
    *((Decoder, f"loss={name}") for name in options("loss")),
    *((part, "conditional=true") for part in (Encoder, Decoder)),
]


def _vae(choice: str) -> VAE:
    """A small model of this choice, whose weights are nothing in particular."""
    small = ["data.image_shape=[2,13,15]", "latent_dim=3", *([] if choice.startswith("model=") else ["model=mlp"])]
    vae: VAE = instantiate(composed("train", "run_dir=/nowhere", *small, choice).module.vae, _convert_="all").eval()
    return vae


def _train(folder: Path, *overrides: str) -> Path:
    train(composed("train", f"run_dir={folder}", *overrides, "logger=csv"))
    return folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> Path:
    pictures = ("callbacks.gallery.pictures.latents=null", "callbacks.gallery.pictures.class_reconstructions=null")
    return _train(tmp_path_factory.mktemp("run"), *tiny_data, *pictures, "data.binarize=threshold")


@pytest.fixture(scope="module")
def hub(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("safetensors", reason='needs safetensors: pip install -e ".[export]"')
    out = tmp_path_factory.mktemp("out")
    export.export(composed("export", f"run={run_dir}", f"run_dir={out}", "format=hub", "license=mit"))
    return out / "hub"


def _export(run: Path, out: Path, *overrides: str) -> list[Path]:
    return export.export(composed("export", f"run={run}", f"run_dir={out}", *overrides))


@pytest.mark.parametrize(("part", "choice"), PARTS, ids=[f"{part.__name__}-{choice}" for part, choice in PARTS])
@torch.no_grad()
def test_every_part_is_traced_for_batches_of_any_size_also_as_onnx(
    part: type[Encoder | Decoder], choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = _vae(choice)
    program = trace(vae, part)
    loaded = program.module()
    for count in (1, 5):
        inputs = example(vae, part, count)
        found = loaded(**inputs)
        labels = inputs.get("labels")
        expected: dict[str, Tensor] = {}
        if part is Decoder:
            expected["pictures"] = vae.decode(inputs["latents"], labels).mean
        elif choice == "posterior=iaf":
            expected["centre"] = vae.encode(inputs["images"], labels).centre
        else:
            q_z = vae.encode(inputs["images"], labels)
            expected |= {"mean": q_z.mean, "log_variance": q_z.variance.log()}
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name].shape == value.shape
            assert torch.allclose(found[name], value, atol=1e-5), name

    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f'needs {package}: pip install -e ".[export]"')
    import onnxruntime

    monkeypatch.setattr(export, "trace", lambda vae, part: program)  # the same again would cost a second
    path = export._traced(vae, part, "onnx", tmp_path, 1e-4)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # weights and all
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = example(vae, part, 4)
    assert [given.name for given in session.get_inputs()] == list(inputs)
    assert all(isinstance(given.shape[0], str) for given in session.get_inputs())  # a name: any number
    values = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    computed = part(vae)(**inputs)
    assert [value.name for value in session.get_outputs()] == list(computed)
    for value, other in zip(values, computed.values(), strict=True):
        np.testing.assert_allclose(value, other.numpy(), atol=1e-4)


def test_torch_loads_both_halves_without_the_other_s_weights(run_dir: Path, tmp_path: Path) -> None:
    files = _export(run_dir, tmp_path, "format=torch_export")
    assert [file.name for file in files] == ["encoder.pt2", "decoder.pt2"]
    encoder, decoder = (torch.export.load(file).module() for file in files)
    loaded = vaelab.load(run_dir)
    images = (np.random.default_rng(0).random((3, 1, 28, 28)) > 0.5).astype(np.float32)
    with torch.no_grad():
        codes = encoder(images=torch.tensor(images))["mean"]
        np.testing.assert_allclose(codes.numpy(), loaded.encode(images), atol=1e-5)
        np.testing.assert_allclose(decoder(latents=codes)["pictures"].numpy(), loaded.decode(codes.numpy()), atol=1e-5)
    names = set(torch.export.load(files[1]).state_dict)
    assert names
    assert all(name.startswith(("vae.decoder.", "vae.likelihood.")) for name in names)


def test_a_hub_s_folder_is_the_same_model(
    hub: Path, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = vaelab.load(run_dir)
    images = np.random.default_rng(0).random((3, 28, 28))
    monkeypatch.chdir(hub.parent)
    for loaded in (vaelab.load(hub), vaelab.from_pretrained("hub"), vaelab.load(hub / "model.safetensors")):
        np.testing.assert_array_equal(loaded.encode(images), original.encode(images))
        np.testing.assert_array_equal(loaded.sample(4, seed=2), original.sample(4, seed=2))
        np.testing.assert_array_equal(loaded.score(images, seed=1), original.score(images, seed=1))
    files = generate(composed("generate", f"run={hub}", f"run_dir={tmp_path}", "what=[samples,reconstructions]"))
    assert all(file.stat().st_size > 1000 for file in files)


def test_a_card_says_what_it_is_and_nothing_of_the_machine(hub: Path, run_dir: Path) -> None:
    text = (hub / "README.md").read_text()
    header = text.split("---\n")[1]
    assert "library_name: vaelab\n" in header
    assert 'license: "mit"\n' in header
    figures = json.loads((run_dir / "metrics.json").read_text())
    assert f"| evidence lower bound | {figures['test/elbo']:,.3f} | nats |" in text
    assert "| binarised | yes, threshold |" in text
    assert "| encoder | `vaelab.models.networks.mlp.MLPEncoder` |" in text
    assert "It was trained from Python" in text
    shown = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert shown == [f"pictures/{name}.png" for name in ("reconstructions", "samples", "path", "manifold")]
    for picture in shown:
        assert (hub / picture).read_bytes() == (run_dir / picture).read_bytes()
    for file in (hub / "README.md", hub / "config.json"):
        assert str(run_dir.parent) not in file.read_text()


def test_a_card_of_a_checkpoint_alone(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("safetensors", reason='needs safetensors: pip install -e ".[export]"')
    alone = tmp_path / "alone.ckpt"
    shutil.copyfile(run_dir / "checkpoints" / "last.ckpt", alone)
    _export(alone, tmp_path / "out", "format=[safetensors,hub]")
    assert "license=mit" in capsys.readouterr().out
    text = (tmp_path / "out" / "hub" / "README.md").read_text()
    assert "license" not in text.split("---\n")[1]
    assert "This checkpoint has none." in text
    assert text.count("![") == 1
    assert (tmp_path / "out" / "hub" / "pictures" / "samples.png").stat().st_size > 1000
    vaelab.load(tmp_path / "out")


def test_a_card_has_no_figures_of_another_checkpoint(run_dir: Path, tmp_path: Path) -> None:
    """The best epoch was tested, and the last one is another model."""
    pytest.importorskip("safetensors", reason='needs safetensors: pip install -e ".[export]"')
    _export(run_dir / "checkpoints" / "last.ckpt", tmp_path, "format=hub")
    text = (tmp_path / "hub" / "README.md").read_text()
    assert "This checkpoint has none." in text
    samples = Path("pictures") / "samples.png"
    assert (tmp_path / "hub" / samples).read_bytes() != (run_dir / samples).read_bytes()


def test_a_card_has_the_command_without_folders(hub: Path, tmp_path: Path) -> None:
    config = json.loads((hub / "config.json").read_text())["config"]
    typed = ["experiment=x", "data_dir=~/mine", "data.source.folder=paintings", "seed=3", "data.image_shape=[1,8,8]"]
    (tmp_path / "config.yaml").write_text(json.dumps({"overrides": [*typed, "logger=csv", "run_dir=/tmp/a"]}))
    subject = TrainedModel.load(hub)
    subject.run = RunFolder(tmp_path)
    assert "\npython src/train.py experiment=x seed=3 'data.image_shape=[1,8,8]'\n" in model_card._training(
        subject, config
    )
    subject.run = None
    chosen = {**config, "choices": {"model": "mlp", "loss": "bce", "callbacks": "none"}}
    assert "\npython src/train.py model=mlp loss=bce latent_dim=2\n" in model_card._training(subject, chosen)


def _edited(hub: Path, folder: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    shutil.copytree(hub, folder)
    settings = json.loads((folder / "config.json").read_text())
    del settings["sha256"]
    edit(settings)
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s["config"]["module"]["vae"]["encoder"].update(_target_="os.system"), "no Module of this package"),
        (
            lambda s: s["config"]["module"]["vae"]["prior"].update(_target_="vaelab.runs.api.Model"),
            "no Module of this package",
        ),
        (lambda s: s["config"]["module"]["vae"].update(extra={"_target_": "builtins.exec"}), "is no setting"),
        (lambda s: s["config"]["module"]["vae"].update(latent_dim="${oc.env:HOME}"), "interpolation"),
        (lambda s: s["config"]["module"]["vae"].update(latent_dim=10**9), "another model"),
        (lambda s: s["config"]["module"].pop("objective"), "has no module.objective"),
        (lambda s: s.update(format=2), "another version"),
        (lambda s: s.pop("config"), "not a checkpoint of this project|incomplete"),
    ],
)
def test_a_hostile_configuration_is_refused(
    hub: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        vaelab.load(_edited(hub, tmp_path / "edited", edit))


def test_damaged_files_are_refused(hub: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    shutil.copytree(hub, folder)
    for damage in ("[" * 100_000, "{", "[1]", '"text"'):
        (folder / "config.json").write_text(damage)
        with pytest.raises(UserError, match="config.json cannot be read|not a checkpoint of this project"):
            vaelab.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="config.json cannot be read"):
        vaelab.load(folder)
    shutil.copyfile(hub / "config.json", folder / "config.json")
    weights = (hub / "model.safetensors").read_bytes()
    settings = json.loads((hub / "config.json").read_text())
    for torn in (weights[:1000], b"\xff" * 100, b""):
        (folder / "model.safetensors").write_bytes(torn)
        with pytest.raises(UserError, match="not as they were exported, because their checksums differ: copy both"):
            vaelab.load(folder)
    del settings["sha256"]  # as in exports of old
    (folder / "config.json").write_text(json.dumps(settings))
    for torn in (weights[:1000], b"\xff" * 100, b""):
        (folder / "model.safetensors").write_bytes(torn)
        with pytest.raises(UserError, match="model.safetensors cannot be read"):
            vaelab.load(folder)


def test_a_difference_that_is_not_a_number_is_no_small_one() -> None:
    assert math.isnan(_largest([0.0, math.nan, 1.0]))
    assert _largest([0.0, 2.0, 1.0]) == 2.0


def test_texts_of_somebody_else_do_not_become_code_of_the_card(hub: Path, tmp_path: Path) -> None:
    typed = ["seed=3", "latent_dim=2\n```\n<script>", "model=`id`", "data=" + "a" * 1000]
    (tmp_path / "config.yaml").write_text(json.dumps({"overrides": typed}))
    subject = TrainedModel.load(hub)
    subject.run = RunFolder(tmp_path)
    assert "\npython src/train.py seed=3\n" in model_card._training(subject, subject.run.config)
    assert "script" not in model_card._metrics(subject, {"test/elbo": -1.0, "tested": "<script>"})


def test_one_flipped_bit_in_an_export_is_noticed(hub: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(hub, tmp_path / "hub")
    for name in ("model.safetensors", "config.json"):
        content = (hub / name).read_bytes()
        at = content.index(b'"seed": ') + 8 if name == "config.json" else len(content) - 100
        (folder / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(UserError, match=r"their checksums differ|cannot be read"):
            vaelab.load(folder)
        (folder / name).write_bytes(content)
    assert vaelab.load(folder).sample(1).shape == (1, 1, 28, 28)


def test_a_file_that_puts_out_something_else_is_not_kept(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = export._torch_export

    def spoilt(program: torch.export.ExportedProgram, path: Path) -> export.Run:
        run = saved(program, path)
        return lambda values: {name: value + 0.25 for name, value in run(values).items()}

    monkeypatch.setattr(export, "_torch_export", spoilt)
    with pytest.raises(UserError, match=r"encoder\.pt2 differs from the checkpoint's model by 2\.5e-01, more than tol"):
        _export(run_dir, tmp_path, "format=torch_export")
    assert not list(tmp_path.iterdir())
    assert len(_export(run_dir, tmp_path, "format=torch_export", "tolerance=0.3")) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["format=tflite"], "format=tflite: no such format; choose from all, onnx"),
        (["tolerance=0"], "tolerance=0: it must be a finite number above 0; type e.g. tolerance=0.0001"),
        (["license=3"], "license=3: it must be text or null; type e.g. license=mit"),
    ],
)
def test_what_is_refused(run_dir: Path, tmp_path: Path, options: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        _export(run_dir, tmp_path, *options)


def test_a_missing_package_is_named(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(UserError, match=r'format=onnx needs onnx: type pip install -e "\.\[export\]"'):
        _export(run_dir, tmp_path, "format=[onnx,hub]")
    assert not list(tmp_path.iterdir())


def test_only_what_is_needed_is_fetched_from_a_hub(hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub", reason='needs it: pip install -e ".[export]"')
    asked: list[Any] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        if name == "no/one":
            raise OSError("not found\nor not reachable")
        return str(hub)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    assert api.local_folder("some/one") == hub
    assert asked == [("some/one", ["model.safetensors", "config.json"])]
    with pytest.raises(UserError, match="no/one is no folder here, and could not be downloaded: not found"):
        api.local_folder("no/one")
    for folder in (str(hub), "nothing", "/not/there", "a/b/c", "../up"):
        assert api.local_folder(folder) == Path(folder)
    assert len(asked) == 2


def test_folders_of_this_machine_stay_here() -> None:
    config = {
        "choices": {"data": "image_folder"},
        "run_dir": "/home/someone/logs",
        "data": {"source": {"_target_": "vaelab.data.image_folder.ImageFolder", "folder": "/a", "cache_dir": "/b"}},
        "module": {"vae": {"x": 1}, "objective": {"y": 2}, "optimizer": {"z": 3}},
        "trainer": {"precision": "32-true", "default_root_dir": "/c"},
    }
    kept = portable(config)
    assert kept["data"]["source"] == {**config["data"]["source"], "folder": None, "cache_dir": None}  # type: ignore[index]
    assert kept["module"] == {"vae": {"x": 1}, "objective": {"y": 2}}
    assert kept["trainer"] == {"precision": "32-true"}
    assert "run_dir" not in kept


@pytest.mark.parametrize(
    ("data", "key"), [("mnist", "data_dir"), ("cifar10", "data_dir"), ("image_folder", "cache_dir")]
)
def test_data_is_looked_for_where_this_machine_has_it(
    data: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: Any = OmegaConf.to_container(composed("train", "run_dir=/nowhere", f"data={data}"), resolve=True)
    monkeypatch.delenv("DATA_DIR", raising=False)
    rebuilt = checkpoint.rebuild_data(portable(config), tmp_path)
    assert getattr(rebuilt.source, key) == ROOT / "data"
