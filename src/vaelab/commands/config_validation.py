"""Validates the settings of each command.

An invalid value raises an error that says what to type instead. First come the settings that the command reads itself,
by the tables below, and the settings that cannot meet. They need no torch, so their errors need not wait for it. Last
come the settings of the parts, by what the parts declare.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, ListConfig

from vaelab.commands.setting_types import check_parts, check_settings_of, check_types
from vaelab.runtime import distributed
from vaelab.runtime.errors import UserError
from vaelab.runtime.validation import (
    AtLeastTwo,
    FractionOrOne,
    Group,
    MatrixProducts,
    Name,
    NonNegativeInt,
    NonNegativeNumber,
    PositiveInt,
    PositiveNumber,
    Seed,
    integer,
    number,
    such_as,
)

MEASURES = ("likelihood", "latents", "reconstructions", "samples", "scores")
FORMATS = ("onnx", "torch_export", "safetensors", "hub")
_SPLITS = ("train", "val", "test")
PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")


def listed(value: Any) -> list[Any]:
    """A setting of one or several values as a list; ``null`` is an empty list."""
    return [] if value is None else list(value) if isinstance(value, ListConfig) else [value]


def _chosen(key: str, value: Any, options: Sequence[str], noun: str) -> list[str]:
    """The chosen options.

    Args:
        key: of the setting.
        value: of the setting: an option, a list of options, or ``all``.
        options: to choose from.
        noun: for an option, in the error message.
    """
    if value == "all":
        return list(options)
    for name in listed(value):
        if name not in options:
            hint = f"choose from all, {', '.join(options)}, or some: {key}=[a,b]"
            raise UserError(f"{key}={name}: no such {noun}; {hint}")
    return listed(value)


_Share = Annotated[float, number(0, 1)]
_OptionalGroup: Any = such_as(Group | None, None)
_TRAINING: dict[str, Any] = {
    "latent_dim": PositiveInt,
    "conditional": bool,
    "seed": Seed,
    "ckpt_path": such_as(Name | None, "latest"),
    "monitor": such_as(str, "val/elbo"),
    "monitor_mode": Literal["max", "min"],
    "keep_freed_memory": bool,
    "flush_denormals": bool,
    "channels_last": bool | Literal["auto"],
    "matmul_precision": MatrixProducts,
    "compile": bool | Literal["reduce-overhead", "max-autotune"],  # torch.compile's modes
    "report": bool,
    "run_dir": Name,
    "data": Group,
    "module": Group,
    "optimizer": Group,
    "scheduler": _OptionalGroup,
    "callbacks": Mapping[str, _OptionalGroup],
    "logger": Mapping[str, _OptionalGroup],
    "trainer": Group,
    "trainer.max_epochs": PositiveInt | Literal[-1] | None,
    "trainer.max_steps": PositiveInt | Literal[-1] | None,
    "trainer.accumulate_grad_batches": PositiveInt,
    "trainer.log_every_n_steps": PositiveInt,
    "trainer.gradient_clip_val": NonNegativeNumber | None,
    "trainer.num_nodes": such_as(PositiveInt, 1),
    "trainer.accelerator": such_as(str, "auto"),
    "trainer.devices": such_as(int | str | Sequence[int], 1),
    "trainer.precision": such_as(str | int, "32-true"),
    "trainer.check_val_every_n_epoch": such_as(PositiveInt | None, 1),
    "trainer.num_sanity_val_steps": such_as(Annotated[int, integer(-1)], 0),
    "trainer.limit_train_batches": such_as(PositiveInt | FractionOrOne | None, 100),
    "trainer.limit_val_batches": such_as(NonNegativeInt | _Share | None, 100),
    "trainer.limit_test_batches": such_as(NonNegativeInt | _Share | None, 100),
    "trainer.profiler": Literal["simple", "advanced", "pytorch"] | None,
}
_EVALUATION: dict[str, Any] = {
    "run": such_as(Name, "latest"),
    "against_run": Name | None,
    "run_dir": Name,
    "data_dir": Name | None,
    "seed": Seed,
    "report": bool,
    "matmul_precision": MatrixProducts,
    "likelihood.samples": PositiveInt,
    "likelihood.limit": AtLeastTwo | None,
    "latents.limit": AtLeastTwo | None,
    "latents.pairs": AtLeastTwo,
    "reconstructions.limit": AtLeastTwo | None,
    "samples.count": Annotated[int, integer(10)],
    "samples.shown": PositiveInt,
    "samples.cache_dir": Name | None,
    "scores.samples": PositiveInt,
    "scores.limit": AtLeastTwo | None,
    "scores.extremes": PositiveInt,
    "trainer": Group,
}
_GENERATION: dict[str, Any] = {
    "run": such_as(Name, "latest"),
    "run_dir": Name,
    "data_dir": Name | None,
    "seed": Seed,
    "limit": AtLeastTwo,
    "frame_ms": Annotated[int, integer(10)],
    "format": Literal["png", "npz", "both"],  # png: with GIF for animations; npz: arrays
    "images": such_as(int | Sequence[int] | None, [3, 17]),
    "files": such_as(Name | Sequence[Name] | None, ["a.png", "b.jpg"]),
    "labels": such_as(int | str | Sequence[int | str] | None, [3, 5]),
    "invert": bool,
    # These are the settings of several kinds of images, which check them, too.
    "count": PositiveInt,
    "temperature": NonNegativeNumber,
    "steps": AtLeastTwo,
    "frames": AtLeastTwo,
    "scale": PositiveInt,
    "beside": Name | None,
    "pictures": Mapping[str, Group],
}
_EXPORT: dict[str, Any] = {
    "run": such_as(Name, "latest"),
    "run_dir": Name,
    "tolerance": such_as(PositiveNumber, 1e-4),
    "license": such_as(str | None, "mit"),
}
_EXPLORATION: dict[str, Any] = {
    "run": such_as(Name, "latest"),
    "run_dir": Name,
    "data_dir": Name | None,
    "images": such_as(NonNegativeInt, 2000),
    "draws": PositiveInt,
    "port": such_as(Annotated[int, integer(0, 65535)], 8000),
    "open": bool,
    "serve": bool,
    "seed": Seed,
}
# Arguments of the trainer that a training itself gives.
_GIVEN = {
    "callbacks": "callbacks",
    "logger": "logger",
    "plugins": "accelerator",
    "enable_progress_bar": "callbacks.progress",
}


def check_training(cfg: DictConfig) -> None:
    """Checks the settings of a training.

    Raises:
        UserError: with what to type instead.
    """
    check_types(cfg, _TRAINING)
    for name, setting in _GIVEN.items():
        if name in cfg.trainer:
            raise UserError(f"nothing reads trainer.{name}; {setting} sets it, and --cfg job -p {setting} prints that")
    if cfg.conditional and cfg.data.classes is None:
        raise UserError("conditional=true needs to know how many classes there are: type data.classes=... as well")
    if cfg.trainer.max_epochs in (-1, None) and cfg.trainer.max_steps in (-1, None) and not cfg.trainer.get("max_time"):
        raise UserError("trainer.max_epochs and trainer.max_steps are both unlimited: type e.g. trainer.max_epochs=30")
    _check_choice_by_validation(cfg)
    processes = distributed.torchrun_processes()
    if processes is not None and processes != _devices(cfg) * cfg.trainer.num_nodes:
        raise UserError(
            f"torchrun has started {processes} processes, and trainer.devices={cfg.trainer.devices} "
            f"trainer.num_nodes={cfg.trainer.num_nodes} are for {_devices(cfg) * cfg.trainer.num_nodes}: type "
            f"trainer.devices={os.environ['LOCAL_WORLD_SIZE']} trainer.num_nodes={os.environ['GROUP_WORLD_SIZE']} with "
            "accelerator=multi_gpu, multi_node or ddp_cpu"
        )
    if str(cfg.trainer.precision) not in PRECISIONS:  # others would not sum densities in 32 bits
        raise UserError(
            f"trainer.precision={cfg.trainer.precision}: choose from 32-true, bf16-mixed and 16-mixed, or type "
            "accelerator=cpu_bf16 or gpu_bf16"
        )
    # Lightning would use another precision without a message.
    if str(cfg.trainer.precision).startswith("16") and _is_on_cpu(cfg):
        raise UserError(
            f"trainer.precision={cfg.trainer.precision} needs a GPU, and this would run on the CPU: type "
            "accelerator=cpu_bf16, or accelerator=cpu for 32 bits"
        )
    check_parts(cfg)


def _check_choice_by_validation(cfg: DictConfig) -> None:
    """Refuses what chooses by validation metrics, where there are none or where they are of the test images."""
    callbacks = [str(node.get("_target_")) for node in cfg.callbacks.values() if node]
    choosing = {
        "callbacks=early_stopping": any(target.endswith("EarlyStopping") for target in callbacks),
        "hydra/sweeper=search": any(target.endswith("Pruning") for target in callbacks),
        "scheduler=plateau": str((cfg.scheduler or {}).get("_target_")).endswith("plateau"),
    }
    for setting, is_chosen in choosing.items():
        if is_chosen and cfg.data.validation == "test":
            raise UserError(
                f"{setting} chooses by validation images, and data.validation=test uses the test images for that: "
                "type data.validation=0.1 as well, or leave it out"
            )
        if is_chosen and cfg.trainer.limit_val_batches == 0:
            raise UserError(
                f"{setting} chooses by validation images, and trainer.limit_val_batches=0 leaves none: "
                "type trainer.limit_val_batches=1.0"
            )


def _is_on_cpu(cfg: DictConfig) -> bool:
    import torch

    has_other = torch.cuda.is_available() or torch.backends.mps.is_available()
    return bool(cfg.trainer.accelerator == "cpu" or (cfg.trainer.accelerator == "auto" and not has_other))


def _devices(cfg: DictConfig) -> int:
    """The number of devices that the settings ask for, as far as it is known without a trainer."""
    import torch

    wanted = cfg.trainer.devices
    if isinstance(wanted, ListConfig):
        return len(wanted)
    if wanted in ("auto", -1, "-1"):
        return max(torch.cuda.device_count(), 1) if cfg.trainer.accelerator != "cpu" else 1
    return len(wanted.split(",")) if isinstance(wanted, str) and not wanted.isdigit() else int(wanted)


def check_evaluation(cfg: DictConfig) -> list[str]:
    """Checks the settings of an evaluation.

    Returns:
        The chosen measures.

    Raises:
        UserError: with what to type instead.
    """
    check_types(cfg, _EVALUATION)
    splits = listed(cfg.likelihood.splits)
    if not splits or any(split not in _SPLITS for split in splits):
        raise UserError(f"likelihood.splits={cfg.likelihood.splits}: choose some of [{','.join(_SPLITS)}]")
    if cfg.against is not None and cfg.against_run is not None:
        raise UserError("against_run=... names a data set already: leave data@against out")
    if isinstance(cfg.against, str):
        raise UserError(f"against={cfg.against}: a data set is chosen by its group: type data@against={cfg.against}")
    wanted = _chosen("what", cfg.what, MEASURES, "measure")
    if (cfg.against is not None or cfg.against_run is not None) and "scores" not in wanted:
        raise UserError(f"what={cfg.what}: only scores compare with another data set: add scores to what")
    check_settings_of(cfg, "trainer", "lightning.Trainer")
    check_parts(cfg)
    return wanted


def check_generation(cfg: DictConfig) -> list[str]:
    """Checks the settings of a generation.

    Returns:
        The chosen kinds of images.

    Raises:
        UserError: with what to type instead.
    """
    check_types(cfg, _GENERATION)
    for file in listed(cfg.files):
        if not Path(str(file)).expanduser().is_file():
            raise UserError(f"files={file}: there is no such file")
    if cfg.invert and not listed(cfg.files):
        raise UserError("invert=true is for images that files=... names: type files=[...] as well")
    wanted = _chosen("what", cfg.what, list(map(str, cfg.pictures)), "picture")
    check_parts(cfg)
    return wanted


def check_export(cfg: DictConfig) -> list[str]:
    """Checks the settings of an export.

    Returns:
        The chosen formats.

    Raises:
        UserError: with what to type instead.
    """
    wanted = _chosen("format", cfg.format, FORMATS, "format")
    check_types(cfg, _EXPORT)
    return wanted


def check_exploration(cfg: DictConfig) -> None:
    """Checks the settings of an explorer.

    Raises:
        UserError: with what to type instead.
    """
    check_types(cfg, _EXPLORATION)
    if cfg.images == 1:
        raise UserError("images=1: a map needs two images; type images=2000, or images=0 for none")
