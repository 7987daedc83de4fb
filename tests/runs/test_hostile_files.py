"""A file of somebody else ends in one line, soon, in little memory, and writes nothing."""

import functools
import json
import os
import random
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

import vaelab
from tests import warm
from tests.conftest import ROOT, composed
from tests.runs.hostile import HARM, honest
from vaelab.commands.export import export
from vaelab.commands.generate import generate
from vaelab.runs import checkpoint, checkpoint_file, sweep_folder
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.errors import UserError
from vaelab.visualization import report

SECONDS, KILOBYTES = 20, 10**6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest checkpoint of 60 kB, alone in its folder."""
    path = tmp_path_factory.mktemp("honest") / "honest.ckpt"
    torch.save(honest(), path)
    return path


@functools.cache
def _command() -> DictConfig:
    return composed("generate", "run=?", "run_dir=?", "what=samples")


def _generate(path: Path) -> list[Path]:
    cfg = _command().copy()
    cfg.run, cfg.run_dir = str(path), str(path.parent / "out")
    return generate(cfg)


def test_an_honest_one_is_used(made: Path) -> None:
    assert vaelab.load(made).sample(2).shape == (2, 1, 28, 28)
    assert [path.name for path in _generate(made)] == ["samples.png"]


@pytest.mark.parametrize("name", HARM)
def test_harm_ends_in_one_line(name: str, tmp_path: Path) -> None:
    path, outside = tmp_path / "foreign.ckpt", tmp_path / "outside"
    contents = honest()
    HARM[name](contents, outside)
    torch.save(contents, path)
    assert path.stat().st_size < 5_000_000
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    for use in (vaelab.load, _generate):
        with pytest.raises(UserError) as caught:
            use(path)
        line = str(caught.value)
        assert line.isprintable(), line
        assert len(line) < 700
        assert str(path) in line
    assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES
    assert [file.name for file in tmp_path.iterdir()] == ["foreign.ckpt"]


@pytest.mark.parametrize("name", ["shared_lists_elsewhere", "expanded_zeros", "module.vae=None"])
def test_the_command_ends_in_one_line(name: str, tmp_path: Path) -> None:
    contents = honest()
    HARM[name](contents, tmp_path / "outside")
    torch.save(contents, tmp_path / "foreign.ckpt")
    words = [ROOT / "src/generate.py", f"run={tmp_path / 'foreign.ckpt'}", f"run_dir={tmp_path / 'out'}"]
    done = warm.run([*words, f"hydra.run.dir={tmp_path / 'out'}"], cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'foreign.ckpt'} ")
    assert done.stderr.count("\n") == 1, done.stderr


# --- where a checkpoint lets write ------------------------------------------------------------------------------------


def _source(**source: Any) -> dict[str, Any]:
    data = honest()["vaelab"]["config"]["data"]
    return {"data": {**data, "source": source}}


@pytest.mark.parametrize("is_there", [False, True])
def test_a_checkpoint_does_not_choose_where_is_written(tmp_path: Path, is_there: bool) -> None:
    outside = tmp_path / "outside"
    if is_there:
        outside.mkdir()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    sources: dict[str, dict[str, Any]] = {
        "digits.Digits": {"cache_dir": str(outside)},
        "mnist.MNIST": {"data_dir": str(outside)},
        "cifar10.CIFAR10": {"data_dir": str(outside)},
        "image_folder.ImageFolder": {"folder": str(pictures), "image_shape": [1, 28, 28], "cache_dir": str(outside)},
    }
    for name, source in sources.items():
        built = checkpoint.rebuild_data(_source(_target_=f"vaelab.data.{name}", **source), tmp_path / "any.ckpt").source
        chosen = vars(built)["data_dir" if "data_dir" in source else "cache_dir"]
        assert not chosen.is_relative_to(tmp_path), name


def test_a_folder_with_the_data_set_is_used(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.ones((28, 28), np.uint8)).save(tmp_path / "b.png")
    cache = tmp_path / "cache"
    for source in (
        {"_target_": "vaelab.data.digits.Digits", "cache_dir": str(cache)},
        {
            "_target_": "vaelab.data.image_folder.ImageFolder",
            "folder": str(tmp_path),
            "image_shape": [1, 28, 28],
            "cache_dir": str(cache),
        },
    ):
        first = checkpoint.rebuild_data(_source(**{**source, "cache_dir": None}), tmp_path, None).source
        first.cache_dir = cache
        first.prepare()
        assert checkpoint.rebuild_data(_source(**source), tmp_path).source.cache_dir == cache


@pytest.mark.parametrize(
    "source",
    [
        {"_target_": "vaelab.data.digits.Digits", "_args_": ["OUTSIDE"]},
        {"_target_": "vaelab.data.digits.Digits", "cache_dir": ["OUTSIDE"]},
        {"_target_": "vaelab.data.digits.Digits", "cache_dir": None, "seed": "../.."},
        {"_target_": "vaelab.data.image_cache.ImageCache", "folder": None, "cache_dir": "OUTSIDE"},
        {"_target_": "vaelab.data.image_folder.ImageFolder", "folder": "a\0b", "image_shape": [1, 28, 28]},
        {"_target_": "vaelab.data.mnist.MNIST", "data_dir": None, "name": "ImageNet"},
        {"_target_": "vaelab.data.datamodule.ImageDataModule", "source": None, "image_shape": [1, 28, 28]},
        {"_target_": "vaelab.models.likelihoods.Bernoulli"},
        {},
    ],
)
def test_a_source_is_a_source_with_settings_of_its_own(tmp_path: Path, source: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"any\.ckpt (was refused|is not a checkpoint)"):
        checkpoint.rebuild_data(_source(**source), tmp_path / "any.ckpt")


def test_data_dir_is_refused_where_a_source_has_no_files(tmp_path: Path) -> None:
    config = _source(_target_="vaelab.data.digits.Digits")
    with pytest.raises(UserError, match="leave data_dir out"):
        checkpoint.rebuild_data(config, tmp_path / "any.ckpt", "elsewhere")


# --- damage ----------------------------------------------------------------------------------------------------------


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return vaelab.load(path).vae.state_dict()


def test_overwritten_bytes_are_noticed(made: Path, tmp_path: Path) -> None:
    content = bytearray(made.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(range(250)) * 16
    (tmp_path / "best.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"best\.ckpt cannot be read as a checkpoint \(Bad "):
        vaelab.load(tmp_path / "best.ckpt")


def test_damage_anywhere_is_noticed_or_changes_nothing(made: Path, tmp_path: Path) -> None:
    """Bits that are flipped, and ends that are missing, at random places of the file."""
    content, expected, chance = made.read_bytes(), _weights(made), random.Random(0)
    path, noticed = tmp_path / "damaged.ckpt", 0
    for trial in range(150):
        at = chance.randrange(len(content))
        damaged = content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        path.write_bytes(content[:at] if trial % 5 == 0 else damaged)
        try:
            found = _weights(path)
        except UserError as error:
            assert "cannot be read as a checkpoint" in str(error)  # noqa: PT017
            noticed += 1
        else:  # e.g. in the padding between two entries
            assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert noticed > 75


@pytest.mark.parametrize("name", ["best", "last"])
def test_the_line_names_the_checkpoint_that_is_whole(made: Path, tmp_path: Path, name: str) -> None:
    folder, other = tmp_path / "checkpoints", "best" if name == "last" else "last"
    folder.mkdir()
    (folder / f"{other}.ckpt").write_bytes(made.read_bytes())
    (folder / f"{name}.ckpt").write_bytes(made.read_bytes()[:-500])
    with pytest.raises(
        UserError, match=rf"{name}\.ckpt cannot .*; (.*{other}\.ckpt) is whole: type its path instead"
    ) as line:
        checkpoint.read(checkpoint.find(tmp_path, prefer=name))
    whole = str(line.value).rpartition("; ")[2].partition(" is whole")[0]
    assert vaelab.load(whole).latent_dim == 2  # what the line says to type
    (folder / f"{other}.ckpt").write_bytes(b"torn")
    with pytest.raises(UserError, match="it is damaged or something else$"):
        checkpoint.read(folder / f"{name}.ckpt")


def test_it_reads_what_torch_reads(finished_run: Path) -> None:
    """All of a training's checkpoint: weights, optimiser, loops, random states."""
    path = finished_run / "checkpoints" / "last.ckpt"
    found, _ = checkpoint_file.read(path)
    _same(found, torch.load(path, weights_only=True))


def _same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            _same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        for one, other in zip(found, expected, strict=True):
            _same(one, other)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    else:
        assert type(found) is type(expected)
        assert found == expected


def _archive(path: Path, pickled: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, content in storages.items():
            archive.writestr(f"x/data/{name}", content)
    return path


def _tensor(count: bytes, size: bytes, stride: bytes) -> bytes:
    """A pickle of one tensor of a storage ``a``; the arguments are integers as a pickle has them."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0aX\x03\0\0\0cpu" + count + b"tQ"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + size + stride + b"\x89}tR."


@pytest.mark.parametrize(
    "pickled",
    [
        _tensor(b"K\x05", b"K\x05\x85", b"K\x01\x85"),  # more numbers than the entry has
        _tensor(b"K\x04", b"K\x05\x85", b"K\x01\x85"),  # more than the storage
        _tensor(b"K\x04", b"K\x04\x85", b"K\x02\x85"),  # further apart
        _tensor(b"K\x04", b"J\0\0\0\x10\x85", b"K\0\x85"),  # one number many times
        _tensor(b"K\x04", b"(" + b"K\1" * 100 + b"t", b"(" + b"K\1" * 100 + b"t"),  # dimensions
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02" + b"(" * 100_000,
        b"\x80\x02}" + b"(K\1K\1" + b"u" * 10 + b".",
        b"\x80\x02cos\nsystem\n)R.",
        b"\x80\x02ctorch\nSize\n)\x81.",
        b"",
        b".",
    ],
)
def test_a_pickle_asks_for_no_more_than_the_file_has(tmp_path: Path, pickled: bytes) -> None:
    path = _archive(tmp_path / "made.ckpt", pickled, a=bytes(16))
    with pytest.raises((checkpoint_file.UnreadableError, checkpoint_file.UnknownContentsError)):
        checkpoint_file.read(path)


def test_the_numbers_of_a_tensor_are_those_of_its_entry(tmp_path: Path) -> None:
    numbers = torch.arange(4.0)
    path = _archive(tmp_path / "a", _tensor(b"K\x04", b"K\2K\2\x86", b"K\1K\2\x86"), a=numbers.numpy().tobytes())
    assert torch.equal(checkpoint_file.read(path)[0], numbers.view(2, 2).T)


STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another size": lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3)),
    "one number repeated": lambda c: c["optimizer_states"][0]["state"][0].update(
        exp_avg=torch.zeros(()).expand_as(c["optimizer_states"][0]["state"][0]["exp_avg"])
    ),
    "another order": lambda c: c["optimizer_states"][0]["param_groups"][0]["params"].reverse(),
    "another parameter": lambda c: c["optimizer_states"][0]["state"].update({-1: {}}),
    "no table": lambda c: c["optimizer_states"].append(3),
    "no step": lambda c: c.pop("global_step"),
    "loops": lambda c: c["loops"]["fit_loop"].update(epoch_progress="a"),
    "random states": lambda c: c["vaelab"].update(random_states=[{"cpu": 1}]),
}


@pytest.mark.parametrize("name", STATES)
def test_a_training_is_not_resumed_with_the_state_of_another_model(finished_run: Path, name: str) -> None:
    """A fused optimiser would write beyond the end of a state that is too small."""
    path = finished_run / "checkpoints" / "last.ckpt"
    contents, parameters = checkpoint.read(path), list(checkpoint.rebuild(path).vae.parameters())
    checkpoint.check_training_state(contents, parameters, path)
    STATES[name](contents)
    with pytest.raises(UserError, match="holds no training that can be resumed") as line:
        checkpoint.check_training_state(contents, parameters, path)
    assert str(line.value).isprintable()


# --- the other files of a run folder ---------------------------------------------------------------------------------

SECRET = "my secret password"


@pytest.fixture
def linked(made: Path, tmp_path: Path) -> Path:
    """A run folder whose files are links to private files."""
    secret, run = tmp_path / "secret.txt", tmp_path / "run"
    secret.write_text(f"{SECRET}: 1\n")
    Image.new("L", (40, 30), 77).save(tmp_path / "private.png", comment=SECRET)
    (run / "checkpoints").mkdir(parents=True)
    (run / "pictures").mkdir()
    (run / "checkpoints" / "last.ckpt").write_bytes(made.read_bytes())
    (run / "metrics.json").write_text(json.dumps({"test/elbo": -1.0, "tested": "the last epoch"}))
    (run / "pictures" / "reconstructions.png").symlink_to(tmp_path / "private.png")
    (run / "pictures" / "path.png").symlink_to(secret)
    (run / "pictures" / "own.png").symlink_to(tmp_path / "private.png")
    for name in ("config.yaml", "evaluation.json", "about.json", "metrics.csv", "latents.npz", "failed.txt"):
        (run / name).symlink_to(secret)
    return run


def test_links_out_of_a_run_folder_are_not_published(linked: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    out = tmp_path / "out"
    export(composed("export", f"run={linked}", f"run_dir={out}", "format=hub"))
    private = (tmp_path / "private.png").read_bytes()
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"README.md", "samples.png"}
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
        assert path.read_bytes() != private
    page = report.write(linked).read_text()
    assert SECRET not in page
    assert "data:image" not in page
    assert "Damaged, and left out: config.yaml" in page


def test_links_within_a_run_folder_are_followed(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "kept").mkdir(parents=True)
    (run / "kept" / "settings.yaml").write_text("latent_dim: 3\n")
    (run / "config.yaml").symlink_to(run / "kept" / "settings.yaml")
    (tmp_path / "latest").symlink_to(run)
    assert RunFolder(tmp_path / "latest").config == {"latent_dim": 3}


def test_a_failure_of_a_job_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text(SECRET)
    hydras = tmp_path / "sweep" / "0" / ".hydra"
    hydras.mkdir(parents=True)
    (hydras / "overrides.yaml").write_text("- latent_dim=2\n- 3\n")
    (tmp_path / "sweep" / "0" / "failed.txt").symlink_to(tmp_path / "secret.txt")
    [job] = sweep_folder.read(tmp_path / "sweep")
    assert (job.overrides, job.failure) == ({"latent_dim": "2"}, "")


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(60))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", LAUGHS),
        ("config.yaml", "a: " + "[" * 2000),
        ("config.yaml", "a: " + "[" * 100 + "]" * 100),
        ("config.yaml", "overrides: [1, 2]"),
        ("config.yaml", "choices: text"),
        ("config.yaml", "- a list"),
        ("config.yaml", "a*: " + "[" * 60_000),
        ("config.yaml", "a: 1" + ":1" * 30_000),
        ("config.yaml", "x: 1\n" * 10**5),
        ("config.yaml", "!!python/object/apply:os.system ['true']"),
        ("evaluation.json", "[" * 10**5),
        ("evaluation.json", '{"metrics": {"test/elbo": 3}}'),
        ("evaluation.json", '{"protocol": []}'),
        ("evaluation.json", '{"a": ' + "9" * 5000 + "}"),
        ("metrics.json", '{"seconds": "long"}'),
        ("about.json", '{"images": 3}'),
    ],
)
def test_a_malformed_file_counts_as_damaged(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    started, folder = time.monotonic(), RunFolder(tmp_path)
    page = report.write(tmp_path).read_text()
    assert f"Damaged, and left out: {name}" in page
    assert (folder.title, folder.choices, folder.setting) == (tmp_path.name, {}, {})
    assert folder.damaged == ([name] if name in ("config.yaml", "evaluation.json") else [])
    assert time.monotonic() - started < SECONDS


def test_a_table_without_runs_is_empty(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("a,run\n1\n1,b\n1,c,3\n")
    assert "Evaluation of 1 runs" in report.write(tmp_path).read_text()
    (tmp_path / "results.csv").write_text("a,run\n" + "1" * 200_000 + ",b\n")
    assert "Evaluation of 0 runs" in report.write(tmp_path).read_text()


def test_a_part_that_is_null_is_missing(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"protocol": null, "metrics": null}')
    assert RunFolder(tmp_path).setting == {}
    assert report.write(tmp_path).is_file()


def test_a_pipe_and_a_huge_file_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    os.mkfifo(tmp_path / "metrics.csv")
    for name in ("metrics.json", "evaluation.json", "scores.csv"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(10**12)  # without blocks on the disk
    (tmp_path / "pictures").mkdir()
    with (tmp_path / "pictures" / "samples.png").open("wb") as file:
        file.truncate(10**12)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    page = report.write(tmp_path).read_text()
    assert "Damaged, and left out" in page
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES


def test_a_small_image_with_many_pixels_is_linked(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "config.yaml").write_text("latent_dim: 2\n")
    Image.new("1", (10_000, 5_000)).save(tmp_path / "pictures" / "samples.png")
    assert "too large for this page (10000 x 5000 pixels)" in report.write(tmp_path).read_text()
