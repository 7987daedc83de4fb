"""What a setting may be, and what is answered to another value."""

import importlib
import inspect
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import ListConfig, OmegaConf
from torch import Tensor, nn

from tests.conftest import ROOT, composed
from vaelab.commands import config_validation, setting_types
from vaelab.commands.error_messages import explain
from vaelab.runtime.errors import UserError
from vaelab.runtime.validation import (
    AtLeastTwo,
    Fraction,
    FractionOrOne,
    FractionOrZero,
    ImageShape,
    MatrixProducts,
    NonNegativeInt,
    NonNegativeNumber,
    PositiveInt,
    PositiveNumber,
    Seed,
    SettingError,
    check,
    check_fields,
    checked,
    integer,
    kind_of,
    such_as,
    within,
)

# Of every sort: what a type accepts of these is said below, and it accepts nothing else of them.
VALUES: dict[str, Any] = {
    "true": True,
    "false": False,
    "numpy true": np.bool_(True),
    "null": None,
    "text": "text",
    "digits": "20",
    "-1": -1,
    "0": 0,
    "1": 1,
    "2": 2,
    "large": 2**32,
    "too large for a float": 10**400,
    "-0.5": -0.5,
    "0.0": 0.0,
    "0.5": 0.5,
    "1.0": 1.0,
    "1.5": 1.5,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "numpy 3": np.int64(3),
    "numpy 0.25": np.float32(0.25),
    "numpy nan": np.float64("nan"),
    "tensor": torch.tensor(1),
    "[]": [],
    "[1]": [1],
    "[1, 28, 28]": [1, 28, 28],
    "(3, 8, 8)": (3, 8, 8),
    "list config": ListConfig([1, 28, 28]),
    "[1, true]": [1, True],
    "[0.5, 1]": [0.5, 1],
    "[0]": [0],
    "array": np.array([1, 2, 3]),
    "dict": {"a": 1},
}
POSITIVE_INTEGERS = {"1", "2", "large", "too large for a float", "numpy 3"}
POSITIVE = POSITIVE_INTEGERS | {"0.5", "1.0", "1.5", "numpy 0.25"}
SHAPES = {"[1, 28, 28]", "(3, 8, 8)", "list config"}
TYPES: list[tuple[Any, set[str], str]] = [
    (PositiveInt, POSITIVE_INTEGERS, "a positive integer"),
    (NonNegativeInt, {"0", *POSITIVE_INTEGERS}, "an integer of at least 0"),
    (AtLeastTwo, POSITIVE_INTEGERS - {"1"}, "an integer of at least 2"),
    (Annotated[int, integer(10)], {"large", "too large for a float"}, "an integer of at least 10"),
    (Annotated[int, integer(0, 2)], {"0", "1", "2"}, "an integer from 0 to 2"),
    (Seed, {"0", "1", "2", "numpy 3"}, "an integer from 0 to 4294967295"),
    (int, {"-1", "0", *POSITIVE_INTEGERS}, "an integer"),
    (float, {"-1", "0", "-0.5", "0.0", *POSITIVE}, "a finite number"),
    (PositiveNumber, POSITIVE, "a finite number above 0"),
    (NonNegativeNumber, {"0", "0.0", *POSITIVE}, "a finite number of at least 0"),
    (Fraction, {"0.5", "numpy 0.25"}, "a number above 0 and below 1"),
    (FractionOrZero, {"0", "0.0", "0.5", "numpy 0.25"}, "a number of at least 0 and below 1"),
    (FractionOrOne, {"1", "1.0", "0.5", "numpy 0.25"}, "a number above 0 and at most 1"),
    (bool, {"true", "false"}, "true or false"),
    (str, {"text", "digits"}, "text"),
    (Literal["text", 1], {"text", "1"}, "text or 1"),
    (MatrixProducts, set(), "highest, high or medium"),
    (ImageShape, SHAPES, "a list of 3 positive integers"),
    (Sequence[PositiveInt], {"[]", "[1]", *SHAPES}, "a list of positive integers"),
    (list[int], {"[]", "[1]", "[0]", *SHAPES}, "a list of integers"),
    (tuple[PositiveInt, ...], {"[]", "[1]", *SHAPES}, "a list of positive integers"),
    (Sequence[Literal[1, 28]], {"[]", "[1]", "[1, 28, 28]", "list config"}, "a list of values, each 1 or 28"),
    (PositiveInt | None, {"null", *POSITIVE_INTEGERS}, "a positive integer or null"),
    (str | Path | None, {"text", "digits", "null"}, "text or null"),
    (tuple[PositiveInt, float, float], SHAPES, "a list of a positive integer, a finite number, a finite number"),
    (tuple[float, float], {"[0.5, 1]"}, "a list of 2 finite numbers"),
    (dict[str, int], {"dict"}, "a group of settings"),
    (Mapping[str, str], set(), "a group of settings"),
    (bool | Literal["text", "auto"], {"true", "false", "text"}, "true, false, text or auto"),
    (
        PositiveInt | Fraction | Literal["test"],
        {*POSITIVE_INTEGERS, "0.5", "numpy 0.25"},
        "a positive integer, a number above 0 and below 1 or test",
    ),
]


@pytest.mark.parametrize(("annotation", "accepted", "words"), TYPES, ids=[words for *_, words in TYPES])
def test_a_type_accepts_its_values_and_refuses_all_others_in_one_line(
    annotation: Any, accepted: set[str], words: str
) -> None:
    refusals = {}
    for name, value in VALUES.items():
        try:
            check("a.b", value, annotation)
        except SettingError as error:
            refusals[name] = str(error)
    assert VALUES.keys() - refusals.keys() == accepted
    for line in refusals.values():
        assert re.fullmatch(rf"a\.b=.+: it must be {re.escape(words)}; type e\.g\. \S+", line)
    kind = kind_of(annotation)
    assert kind is not None
    assert kind.accepts(kind.example)


@pytest.mark.parametrize("annotation", [Any, Tensor, str | Tensor, Callable[..., nn.Module], dict[str, Tensor]])
def test_what_is_no_plain_type_is_not_checked(annotation: Any) -> None:
    assert kind_of(annotation) is None
    for value in VALUES.values():
        check("a", value, annotation)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "true"), (None, "null"), ("20", "'20'"), ([1, "b c"], "[1,'b c']"), (ListConfig([0]), "[0]"), (0.5, "0.5")],
)
def test_a_value_is_shown_as_it_is_typed(value: Any, shown: str) -> None:
    assert str(SettingError("a", value, "b", 1)).startswith(f"a={shown}: it must be b")


def test_a_proposal_is_quoted_where_a_shell_would_read_it() -> None:
    assert str(SettingError("a", 1, "a list", (64, 64))).endswith("type e.g. 'a=[64,64]'")


def test_a_better_example_is_proposed_if_it_is_of_the_type() -> None:
    with pytest.raises(SettingError, match=r"type e\.g\. port=8000$"):
        check("port", -1, such_as(Annotated[int, integer(0, 65535)], 8000))
    for default, proposed in ((7, 7), (0, 20), (None, 20)):
        with pytest.raises(SettingError, match=rf"type e\.g\. a={proposed}$"):
            check("a", "b", PositiveInt, default)


def test_the_error_is_of_both_kinds_and_survives_a_process_border() -> None:
    error = SettingError("components", 0, "a positive integer", 10).within("prior")
    assert isinstance(error, UserError)
    assert isinstance(error, ValueError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(error).startswith("prior.components=0: ")


class Part(nn.Module):
    """As the parts of a model are."""

    @checked
    def __init__(
        self, size: PositiveInt, *, mode: Literal["a", "b"] = "b", rate: Fraction = 0.25, **others: int
    ) -> None:
        """Makes one."""
        super().__init__()
        self.size, self.mode, self.rate, self.others = size, mode, rate, others


class Whole(nn.Module):
    """A module of which a part is made later."""

    def __init__(self, part: Callable[[], nn.Module]) -> None:
        super().__init__()
        with within("part"):
            self.part = part()


def test_arguments_are_checked_by_position_and_name() -> None:
    part = Part(3, rate=0.5, other=4)
    assert (part.size, part.mode, part.rate, part.others) == (3, "b", 0.5, {"other": 4})
    with pytest.raises(SettingError, match=r"^size=0: it must be a positive integer; type e\.g\. size=20$"):
        Part(0)
    with pytest.raises(SettingError, match=r"^mode=c: it must be a or b; type e\.g\. mode=b$"):
        Part(1, mode="c")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"^rate=1: .* type e\.g\. rate=0\.25$"):
        Part(size=1, rate=1)
    with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required positional argument: 'size'"):
        Part()  # type: ignore[call-arg]


def test_a_checked_function_is_like_the_one_it_was() -> None:
    assert list(inspect.signature(Part).parameters) == ["size", "mode", "rate", "others"]
    assert inspect.signature(Part).parameters["rate"].default == 0.25
    assert Part.__init__.__doc__ == "Makes one."
    assert pickle.loads(pickle.dumps(partial(Part, 2)))().size == 2
    assert pickle.loads(pickle.dumps(Part(2))).size == 2


def test_hydra_names_the_setting_with_its_place() -> None:
    target = {"_target_": f"{__name__}.Part", "size": 0}
    cfg = OmegaConf.create(
        {"module": {"one": target, "vae": {"_target_": f"{__name__}.Whole", "part": {**target, "_partial_": True}}}}
    )
    for node, place in ((cfg.module.one, "module.one"), (cfg.module.vae, "module.vae.part")):
        with pytest.raises(InstantiationException) as refused:
            instantiate(node)
        line = f"{place}.size=0: it must be a positive integer; type e.g. {place}.size=20"
        assert explain(refused.value) == line


@dataclass(frozen=True)
class Schedule:
    """As a warm-up is."""

    steps: NonNegativeInt = 5

    def __post_init__(self) -> None:
        check_fields(self)


def test_the_fields_of_a_dataclass_are_checked() -> None:
    assert Schedule(0).steps == 0
    with pytest.raises(SettingError, match=r"^steps=true: it must be an integer of at least 0; type e\.g\. steps=5$"):
        Schedule(True)


def test_nothing_else_asks_whether_a_value_is_a_boolean() -> None:
    """Ladders of isinstance are what this file is instead of."""
    ladder = re.compile(r"isinstance\([^)]*\bbool\b|type\([^)]*\) (?:is|==) bool")
    files = [file for file in (ROOT / "src").rglob("*.py") if file.name not in ("validation.py", "overrides.py")]
    assert len(files) > 80
    assert not [str(file) for file in files if ladder.search(file.read_text())]


def test_it_does_not_load_torch() -> None:
    code = "import sys; import vaelab.runtime.validation; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src", check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("command", "function", "overrides"),
    [
        ("train", "vaelab.commands.train.train", ["ckpt_path=/nowhere/run"]),
        ("evaluate", "vaelab.commands.evaluate.evaluate", ["run=/nowhere/run"]),
        ("generate", "vaelab.commands.generate.generate", ["run=/nowhere/run"]),
        ("export", "vaelab.commands.export.export", ["run=/nowhere/run", "format=torch_export"]),
        ("explore", "vaelab.commands.explore.explore", ["run=/nowhere/run"]),
    ],
)
def test_the_settings_of_a_command_are_checked_once(
    command: str, function: str, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[object] = []
    check_types = setting_types.check_types

    def counted(cfg: Any, types: Any) -> None:
        checks.append(cfg)
        check_types(cfg, types)

    monkeypatch.setattr(config_validation, "check_types", counted)
    module, _, name = function.rpartition(".")
    in_python = getattr(importlib.import_module(module), name)
    as_command = inspect.unwrap(importlib.import_module(command).main)
    for call in (in_python, as_command):
        checks.clear()
        with pytest.raises(UserError, match="/nowhere/run does not exist"):
            call(composed(command, f"run_dir={tmp_path}", *overrides))
        assert len(checks) == 1
        with pytest.raises(UserError, match="it must be"):
            call(composed(command, f"run_dir={tmp_path}", *overrides, WRONG[command]))


WRONG = {
    "train": "latent_dim=0",
    "evaluate": "likelihood.samples=0",
    "generate": "count=0",
    "export": "tolerance=0",
    "explore": "draws=0",
}
