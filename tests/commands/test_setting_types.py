"""Every setting has a type, which is checked in one place: of the commands by tables, of parts by what they declare."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from tests.conftest import ROOT, composed
from vaelab.commands import config_validation
from vaelab.commands.config_validation import (
    check_evaluation,
    check_exploration,
    check_export,
    check_generation,
    check_training,
)
from vaelab.commands.setting_types import check_parts, check_types
from vaelab.runtime.errors import UserError
from vaelab.runtime.paths import options_of
from vaelab.runtime.validation import PositiveInt, SettingError, kind_of_setting

CONFIGS = ROOT / "configs"
TABLES: dict[str, tuple[dict[str, Any], Callable[..., Any]]] = {
    "train": (config_validation._TRAINING, check_training),
    "evaluate": (config_validation._EVALUATION, check_evaluation),
    "generate": (config_validation._GENERATION, check_generation),
    "export": (config_validation._EXPORT, check_export),
    "explore": (config_validation._EXPLORATION, check_exploration),
}
# Settings whose options depend on others: the commands check them by rules of their own.
RULED = {"what", "format", "likelihood.splits", "against", "experiment", "debug"}


class Network(nn.Module):
    """A part of a model."""

    def __init__(self, sizes: tuple[int, int], rate: float | Tensor = 0.5, wait: timedelta | str | None = None) -> None:
        super().__init__()


class Wide(Network):
    """A part that gives its options to its base class."""

    def __init__(self, width: PositiveInt = 3, **options: Any) -> None:
        super().__init__(**options)


class Owner:
    """A part with other parts."""

    def __init__(
        self,
        network: Network,
        later: Callable[..., Network] | None = None,
        several: Mapping[str, Callable[[int], Network] | None] | None = None,
    ) -> None: ...


class Uncle:
    """A part that is no network, and takes anything."""

    def __init__(self, *values: Any, **options: Any) -> None: ...


def _part(cls: type, **settings: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{cls.__name__}", **settings}


NETWORK = _part(Network, sizes=[1, 2])
PARTIAL = {**NETWORK, "_partial_": True}
WRONG: list[tuple[dict[str, Any], str]] = [
    (_part(Network, sizes=[1]), r"part\.sizes=\[1\]: it must be a list of 2 integers; type e\.g\. 'part\.sizes=\[20"),
    (_part(Network, sizes=3), r"part\.sizes=3: it must be a list of 2 integers"),
    (
        _part(Network, sizes=[1, 2], rate="fast"),
        r"part\.rate=fast: it must be a finite number; type e\.g\.",
    ),
    (_part(Network, sizes=[1, 2], rate=None), r"part\.rate=null"),
    (_part(Network, sizes=[1, 2], wait=3), r"part\.wait=3: it must be text or null"),
    (_part(Network, sizes=[1, 2], size=3), r"nothing reads part\.size; did you mean part\.sizes=3\?"),
    (_part(Network, sizes=[1, 2], other=3), r"nothing reads part\.other; part has sizes, rate, wait"),
    (_part(Network), r"part\.sizes is missing"),
    (_part(Wide, sizes=[1, 2], width=0), r"part\.width=0: it must be a positive integer; type e\.g\. part\.width=3"),
    (_part(Wide, sizes=1), r"part\.sizes=1"),
    (_part(Wide, sizes=[1, 2], with_=1), r"nothing reads part\.with_; did you mean part\.width=1\?"),
    ({**NETWORK, "_partial_": 1}, r"part\._partial_=1: it must be true or false"),
    ({**NETWORK, "_convert_": []}, r"part\._convert_=\[\]"),
    ({"_target_": 3}, r"part\._target_=3: it must be text"),
    ({"_target_": "nowhere.Nothing"}, r"part\._target_=nowhere\.Nothing"),
    ({"_target_": "math.pi"}, r"part\._target_=math\.pi: it is neither a class nor a function"),
    (_part(Owner, network=None), r"part\.network=null: it must be a group of settings with _target_"),
    (_part(Owner, network=7), r"part\.network=7: it must be a group"),
    (_part(Owner, network={"sizes": 3}), r"part\.network=.*: it must be a group"),
    (_part(Owner, network=PARTIAL), r"part\.network\._partial_=true: it must be false"),
    (_part(Owner, network=_part(Uncle)), r"part\.network\._target_=.*: it must build a Network, and it builds a Uncle"),
    (_part(Owner, network=_part(Network, sizes=1)), r"part\.network\.sizes=1"),
    (_part(Owner, network=NETWORK, later=NETWORK), r"part\.later\._partial_=false: it must be true"),
    (_part(Owner, network=NETWORK, later={**PARTIAL, **_part(Uncle)}), r"part\.later\._target_=.*must build a Network"),
    (_part(Owner, network=NETWORK, later=3), r"part\.later=3: it must be null"),
    (_part(Owner, network=NETWORK, several={"a": 3}), r"part\.several\.a=3: it must be null"),
    (_part(Owner, network=NETWORK, several={"a": {**PARTIAL, "rate": "x"}}), r"part\.several\.a\.rate=x"),
    (_part(Owner, network=NETWORK, several=[1]), r"part\.several=\[1\]"),
]
RIGHT: list[dict[str, Any]] = [
    NETWORK,
    _part(Network, sizes=[1, 2], rate=3, wait="a minute"),
    _part(Wide, sizes=[1, 2], rate=0.1),
    _part(Uncle, anything=[1, {"a": None}]),
    _part(Owner, network=NETWORK, later=PARTIAL, several={"a": PARTIAL, "b": None}),
    _part(Owner, network=_part(Wide, sizes=[3, 4])),
    {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1, "betas": [0.1, 0.2]},
    {"_target_": "builtins.int"},
]


@pytest.mark.parametrize(("part", "line"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_setting_of_a_part_is_named(part: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=rf"^{line}"):
        check_parts(OmegaConf.create({"part": part}))


@pytest.mark.parametrize("part", RIGHT, ids=lambda part: part["_target_"])
def test_right_settings_of_a_part_pass(part: dict[str, Any]) -> None:
    cfg = OmegaConf.create({"part": part, "several": {"a": part}})
    check_parts(cfg)
    assert cfg == {"part": part, "several": {"a": part}}


def test_a_setting_is_named_before_those_that_follow_it() -> None:
    one = _part(Wide, width="${two.width}", sizes=[1, 2])
    with pytest.raises(SettingError, match=r"^two\.width=0: it must be a positive integer"):
        check_parts(OmegaConf.create({"one": one, "two": _part(Wide, width=0, sizes=[1, 2])}))
    with pytest.raises(SettingError, match=r"^one\.width=a: it must be a positive integer"):  # there it may be anything
        check_parts(OmegaConf.create({"one": one, "two": _part(Uncle, width="a")}))
    cfg = OmegaConf.create({"owner": _part(Owner, network="${net}"), "net": _part(Network, sizes=[1])})
    with pytest.raises(SettingError, match=r"^net\.sizes=\[1\]"):
        check_parts(cfg)


@pytest.mark.parametrize("text", ["7", " 7", "'7'"])
def test_text_that_states_a_value_of_the_right_type_is_that_value(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of an environment variable, which is always text."""
    monkeypatch.setenv("WIDTH", text.strip("'"))
    wide = _part(Wide, width="${width}", sizes=["${oc.env:WIDTH}", 2])
    cfg = OmegaConf.create({"width": "${oc.env:WIDTH}", "part": wide, "name": "${oc.env:WIDTH}"})
    check_types(cfg, {"width": PositiveInt, "name": str})
    check_parts(cfg)
    assert cfg.width == 7
    assert cfg.part.width == 7
    assert cfg.part.sizes == [7, 2]
    assert cfg.name == text.strip("'")


def test_text_that_states_none_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("seven", "7.5", "[7", ""):
        monkeypatch.setenv("WIDTH", text)
        with pytest.raises(SettingError, match=r"^width=.*: it must be a positive integer; type e\.g\. width=20$"):
            check_types(OmegaConf.create({"width": "${oc.env:WIDTH}"}), {"width": PositiveInt})


@pytest.mark.parametrize("command", TABLES)
def test_every_setting_of_a_command_has_a_type(command: str) -> None:
    declared: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{command}.yaml"))
    types = TABLES[command][0]

    def untyped(prefix: str, node: Any) -> list[str]:
        if prefix in types and not (isinstance(node, dict) and "_target_" not in node):
            return []
        if isinstance(node, dict) and "_target_" not in node and node:
            return [
                name for key, child in node.items() for name in untyped(f"{prefix}{'.' * bool(prefix)}{key}", child)
            ]
        return [prefix]

    declared.pop("defaults")
    by_parts = {"data", "module", "trainer", "optimizer", "callbacks", "pictures"}  # what parts declare, see below
    left = {name for name in untyped("", declared) if name.partition(".")[0] not in by_parts}
    assert left <= RULED
    for key, annotation in types.items():
        assert kind_of_setting(annotation) is not None, key


@pytest.mark.parametrize("group", sorted(path.name for path in CONFIGS.iterdir() if path.is_dir()))
def test_every_part_of_every_option_declares_the_types_of_its_settings(group: str, tmp_path: Path) -> None:
    """So that a value of another type is refused for each of them, whoever wrote the part."""
    if group in ("hydra", "experiment", "debug"):  # Hydra's own, and those which choose options of the other groups
        return
    seen = set()
    for option in options_of(group):
        cfg = composed("train", f"run_dir={tmp_path}", f"{group}={option}")
        check_parts(cfg)
        for key, value in _leaves("", OmegaConf.to_container(cfg)):
            parent, _, name = key.rpartition(".")
            part: Any = OmegaConf.select(cfg, parent) if parent else None
            if not OmegaConf.is_dict(part) or "_target_" not in part or name.startswith("_") or "${" in str(value):
                continue
            if (part._target_, name) in seen:
                continue
            seen.add((part._target_, name))
            before: Any = OmegaConf.to_container(part)
            OmegaConf.update(cfg, key, [{"nonsense": value}], merge=False)
            with pytest.raises(UserError, match=name):
                check_parts(cfg)
            OmegaConf.update(cfg, key, before[name], merge=False)
    assert len(seen) > 50


def _leaves(prefix: str, node: Any) -> list[tuple[str, Any]]:
    if not isinstance(node, dict) or not node:
        return [(prefix, node)]
    return [leaf for key, child in node.items() for leaf in _leaves(f"{prefix}{'.' * bool(prefix)}{key}", child)]


def _is_in_a_part(cfg: Any, key: str) -> bool:
    parent = OmegaConf.select(cfg, key.rpartition(".")[0])
    return OmegaConf.is_dict(parent) and "_target_" in parent


@pytest.mark.parametrize("command", ["train", "evaluate", "generate", "export", "explore"])
def test_the_tables_need_no_torch(command: str) -> None:
    code = (
        "import sys; from vaelab.commands import config_validation as c; from omegaconf import OmegaConf\n"
        "try: c.check_types(OmegaConf.create({'seed': -1}), {'seed': c.Seed})\n"
        "except c.UserError as error: print(error)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src", check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_what_the_training_itself_gives_to_the_trainer_is_not_read() -> None:
    for name, setting in config_validation._GIVEN.items():
        with pytest.raises(UserError, match=rf"^nothing reads trainer\.{name}; {setting}"):
            check_training(composed("train", "run_dir=/nowhere", f"+trainer.{name}=null"))


def test_what_chooses_by_validation_needs_validation() -> None:
    for chosen in ("callbacks=early_stopping", "scheduler=plateau"):
        with pytest.raises(UserError, match=rf"^{chosen} chooses by validation images.*limit_val_batches=1\.0$"):
            check_training(composed("train", "run_dir=/nowhere", chosen, "trainer.limit_val_batches=0"))
        check_training(composed("train", "run_dir=/nowhere", chosen, "trainer.limit_val_batches=1.0"))


def test_out_of_memory_is_recognised() -> None:
    from vaelab.runtime.workarounds.memory import is_out_of_memory

    with pytest.raises(RuntimeError) as missing:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(missing.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
