"""What the settings of each command must be, where no part of it can see that for itself.

Each check refuses what cannot be with what to type instead. torch is imported where there is no other way to know, so
that a mistake is answered at once.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from vaelab.runtime import distributed
from vaelab.runtime.errors import UserError

MEASURES = ("likelihood", "latents", "reconstructions", "samples", "scores")
FORMATS = ("onnx", "torch_export", "safetensors", "hub")
_SPLITS = ("train", "val", "test")
_COMPILE_MODES = ("reduce-overhead", "max-autotune")  # torch.compile's
_PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")


def listed(value: Any) -> list[Any]:
    """One or several values, as a list."""
    return [] if value is None else list(value) if isinstance(value, ListConfig) else [value]


def _chosen(key: str, value: Any, options: Sequence[str], what: str) -> list[str]:
    """Some of these options, or all."""
    if value == "all":
        return list(options)
    for name in listed(value):
        if name not in options:
            given = f"choose from all, {', '.join(options)}, or some: {key}=[a,b]"
            raise UserError(f"{key}={name}: no such {what}; {given}")
    return listed(value)


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check_seed(cfg: DictConfig) -> None:
    if not _is_integer(cfg.seed, 0) or cfg.seed >= 2**32:
        raise UserError(f"seed={cfg.seed}: it must be an integer from 0 to 4294967295; type e.g. seed=0")


def check_training(cfg: DictConfig) -> None:
    """Refuses a training that cannot be.

    Raises:
        UserError: with what to type instead.
    """
    if not _is_integer(cfg.latent_dim, 1):
        raise UserError(f"latent_dim={cfg.latent_dim}: it must be a positive integer; type e.g. latent_dim=20")
    for key in ("conditional", "report", "keep_freed_memory", "flush_denormals"):
        if not isinstance(cfg[key], bool):
            raise UserError(f"{key}={cfg[key]}: it is true or false")
    if cfg.conditional and cfg.data.classes is None:
        raise UserError("conditional=true needs to know how many classes there are: type data.classes=... as well")
    _check_seed(cfg)
    for key, least in (("max_epochs", 1), ("max_steps", 1), ("accumulate_grad_batches", 1), ("log_every_n_steps", 1)):
        value = cfg.trainer[key]
        unlimited = key in ("max_epochs", "max_steps") and value in (-1, None)
        if not unlimited and not _is_integer(value, least):
            raise UserError(f"trainer.{key}={value}: it must be a positive integer; type e.g. trainer.{key}=10")
    for key, value in cfg.optimizer.items():
        if isinstance(value, str) and not str(key).startswith("_"):
            raise UserError(f"optimizer.{key}={value}: it must be a number; type e.g. optimizer.lr=1e-3")
    clip = cfg.trainer.gradient_clip_val
    if clip is not None and (not isinstance(clip, int | float) or isinstance(clip, bool) or clip < 0):
        raise UserError(f"trainer.gradient_clip_val={clip}: it must be a number of at least 0, 0 for no clipping")
    if cfg.trainer.max_epochs in (-1, None) and cfg.trainer.max_steps in (-1, None) and not cfg.trainer.get("max_time"):
        raise UserError("trainer.max_epochs and trainer.max_steps are both unlimited: type e.g. trainer.max_epochs=30")
    if cfg.data.validation == "test":
        _check_nothing_watches(cfg)
    processes = distributed.torchrun_processes()
    if processes is not None and processes != _devices(cfg) * cfg.trainer.num_nodes:
        raise UserError(
            f"torchrun has started {processes} processes, and trainer.devices={cfg.trainer.devices} "
            f"trainer.num_nodes={cfg.trainer.num_nodes} are for {_devices(cfg) * cfg.trainer.num_nodes}: type "
            f"trainer.devices={os.environ['LOCAL_WORLD_SIZE']} trainer.num_nodes={os.environ['GROUP_WORLD_SIZE']} with "
            "accelerator=multi_gpu, multi_node or ddp_cpu"
        )
    if str(cfg.trainer.precision) not in _PRECISIONS:  # in the others, densities would not be summed in 32 bits
        raise UserError(
            f"trainer.precision={cfg.trainer.precision}: choose from 32-true, bf16-mixed and 16-mixed, or type "
            "accelerator=cpu_bf16 or gpu_bf16"
        )
    if cfg.compile not in (False, True, *_COMPILE_MODES):
        raise UserError(f"compile={cfg.compile}: it is true, false, {' or '.join(_COMPILE_MODES)}")
    if str(cfg.trainer.precision).startswith("16") and _is_on_cpu(
        cfg
    ):  # Lightning would quietly take another precision
        raise UserError(
            f"trainer.precision={cfg.trainer.precision} needs a GPU, and this would run on the CPU: type "
            "accelerator=cpu_bf16, or accelerator=cpu for 32 bits"
        )


def _check_nothing_watches(cfg: DictConfig) -> None:
    """Refuses what would choose by the test images, where those are validated on."""
    callbacks = [str(node.get("_target_")) for node in cfg.callbacks.values() if node]
    what = {
        "callbacks=early_stopping": any(target.endswith("EarlyStopping") for target in callbacks),
        "hydra/sweeper=search": any(target.endswith("Pruning") for target in callbacks),
        "scheduler=plateau": str((cfg.scheduler or {}).get("_target_")).endswith("plateau"),
    }
    for setting, is_chosen in what.items():
        if is_chosen:
            raise UserError(
                f"{setting} goes by validation images, which data.validation=test takes from the test: type "
                "data.validation=0.1 as well, or leave it out"
            )


def _is_on_cpu(cfg: DictConfig) -> bool:
    import torch

    has_other = torch.cuda.is_available() or torch.backends.mps.is_available()
    return bool(cfg.trainer.accelerator == "cpu" or (cfg.trainer.accelerator == "auto" and not has_other))


def _devices(cfg: DictConfig) -> int:
    """How many devices are asked for, as far as that can be told before there is a trainer."""
    import torch

    wanted = cfg.trainer.devices
    if isinstance(wanted, ListConfig):
        return len(wanted)
    if wanted in ("auto", -1, "-1"):
        return max(torch.cuda.device_count(), 1) if cfg.trainer.accelerator != "cpu" else 1
    return int(wanted)


def check_evaluation(cfg: DictConfig) -> list[str]:
    """Refuses impossible settings; the measures that are wanted.

    Raises:
        UserError: with what to type instead.
    """
    _check_seed(cfg)
    for key, least in (
        ("likelihood.samples", 1),
        ("likelihood.limit", 2),
        ("latents.limit", 2),
        ("latents.pairs", 2),
        ("reconstructions.limit", 2),
        ("samples.count", 10),
        ("samples.shown", 1),
        ("scores.samples", 1),
        ("scores.limit", 2),
        ("scores.extremes", 1),
    ):
        value = OmegaConf.select(cfg, key)
        if value is None and key.endswith(".limit"):
            continue
        if not _is_integer(value, least):
            raise UserError(f"{key}={value}: it must be an integer of at least {least}")
    if not isinstance(cfg.report, bool):
        raise UserError(f"report={cfg.report}: it is true or false")
    splits = listed(cfg.likelihood.splits)
    if not splits or any(split not in _SPLITS for split in splits):
        raise UserError(f"likelihood.splits={cfg.likelihood.splits}: choose some of [{','.join(_SPLITS)}]")
    if cfg.against is not None and cfg.against_run is not None:
        raise UserError("against_run=... names a data set already: leave data@against out")
    if isinstance(cfg.against, str):
        raise UserError(f"against={cfg.against}: a data set is chosen by its group: type data@against={cfg.against}")
    wanted = _chosen("what", cfg.what, MEASURES, "measure")
    if (cfg.against is not None or cfg.against_run is not None) and "scores" not in wanted:
        raise UserError(f"what={cfg.what}: another data set is told from this one by scores: add scores to what")
    return wanted


def check_generation(cfg: DictConfig) -> list[str]:
    """Refuses impossible settings; the pictures that are wanted.

    Raises:
        UserError: with what to type instead.
    """
    _check_seed(cfg)
    least = dict.fromkeys(("count", "scale", "per_class", "dimensions"), 1)
    least |= {"limit": 2, "steps": 2, "frames": 2, "frame_ms": 10}
    numbers = [("", cfg), *((f"pictures.{name}.", cfg.pictures[name]) for name in cfg.pictures)]
    for key, value in ((prefix + key, values[key]) for prefix, values in numbers for key in least if key in values):
        smallest = least[key.rpartition(".")[2]]
        if not _is_integer(value, smallest):
            raise UserError(f"{key}={value}: it must be an integer of at least {smallest}")
    for key, value in (("temperature", cfg.temperature), ("pictures.traversal.reach", cfg.pictures.traversal.reach)):
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
            raise UserError(f"{key}={value}: it must be a number of at least 0")
    if cfg.format not in ("png", "npz", "both"):
        raise UserError(f"format={cfg.format}: choose from png (and GIF), npz (the numbers), both")
    for number in listed(cfg.images):
        if not isinstance(number, int) or isinstance(number, bool):
            raise UserError(f"images={number}: test images are chosen by number, from 0: type e.g. images=[3,17]")
    for file in listed(cfg.files):
        if not Path(str(file)).expanduser().is_file():
            raise UserError(f"files={file}: there is no such file")
    if not isinstance(cfg.invert, bool) or (cfg.invert and not listed(cfg.files)):
        raise UserError(f"invert={cfg.invert}: true or false, for images that files=... names")
    return _chosen("what", cfg.what, list(map(str, cfg.pictures)), "picture")


def check_export(cfg: DictConfig) -> list[str]:
    """Refuses impossible settings; the formats that are wanted.

    Raises:
        UserError: with what to type instead.
    """
    wanted = _chosen("format", cfg.format, FORMATS, "format")
    if not isinstance(cfg.tolerance, int | float) or isinstance(cfg.tolerance, bool) or not cfg.tolerance > 0:
        raise UserError(f"tolerance={cfg.tolerance}: it must be a number above 0, e.g. 1e-4")
    if cfg.license is not None and not isinstance(cfg.license, str):
        raise UserError(f"license={cfg.license}: type the identifier of a licence, e.g. license=mit")
    return wanted
