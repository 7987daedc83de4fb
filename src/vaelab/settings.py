"""What a training's settings must be, where no part of it can see that for itself."""

import os

import torch
from omegaconf import DictConfig, ListConfig

from vaelab import ranks
from vaelab.errors import UserError

_COMPILE_MODES = ("reduce-overhead", "max-autotune")  # torch.compile's
_PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")


def check(cfg: DictConfig) -> None:
    """Refuses what no part of the configuration can see for itself.

    Raises:
        UserError: with what to type instead.
    """
    if not isinstance(cfg.latent_dim, int) or isinstance(cfg.latent_dim, bool) or cfg.latent_dim < 1:
        raise UserError(f"latent_dim={cfg.latent_dim}: it must be a positive integer; type e.g. latent_dim=20")
    for key in ("conditional", "report", "keep_freed_memory", "flush_denormals"):
        if not isinstance(cfg[key], bool):
            raise UserError(f"{key}={cfg[key]}: it is true or false")
    if cfg.conditional and cfg.data.classes is None:
        raise UserError("conditional=true needs to know how many classes there are: type data.classes=... as well")
    if not isinstance(cfg.seed, int) or isinstance(cfg.seed, bool) or not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed}: it must be an integer from 0 to 4294967295; type e.g. seed=0")
    for key, least in (("max_epochs", 1), ("max_steps", 1), ("accumulate_grad_batches", 1), ("log_every_n_steps", 1)):
        value = cfg.trainer[key]
        unlimited = key in ("max_epochs", "max_steps") and value in (-1, None)
        if not unlimited and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UserError(f"trainer.{key}={value}: it must be a positive integer; type e.g. trainer.{key}=10")
    for key, value in cfg.optimizer.items():
        if isinstance(value, str) and not str(key).startswith("_"):
            raise UserError(f"optimizer.{key}={value}: it must be a number; type e.g. optimizer.lr=1e-3")
    clip = cfg.trainer.gradient_clip_val
    if clip is not None and (not isinstance(clip, int | float) or isinstance(clip, bool) or clip < 0):
        raise UserError(f"trainer.gradient_clip_val={clip}: it must be a number of at least 0, 0 for no clipping")
    if cfg.trainer.max_epochs in (-1, None) and cfg.trainer.max_steps in (-1, None) and not cfg.trainer.get("max_time"):
        raise UserError("trainer.max_epochs and trainer.max_steps are both unlimited: type e.g. trainer.max_epochs=30")
    processes = ranks.torchrun_processes()
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
    on_cpu = cfg.trainer.accelerator == "cpu" or (
        cfg.trainer.accelerator == "auto" and not torch.cuda.is_available() and not torch.backends.mps.is_available()
    )
    if cfg.compile not in (False, True, *_COMPILE_MODES):
        raise UserError(f"compile={cfg.compile}: it is true, false, {' or '.join(_COMPILE_MODES)}")
    if on_cpu and str(cfg.trainer.precision).startswith("16"):  # Lightning would quietly take another precision
        raise UserError(
            f"trainer.precision={cfg.trainer.precision} needs a GPU, and this would run on the CPU: type "
            "accelerator=cpu_bf16, or accelerator=cpu for 32 bits"
        )


def _devices(cfg: DictConfig) -> int:
    """How many devices are asked for, as far as that can be told before there is a trainer."""
    wanted = cfg.trainer.devices
    if isinstance(wanted, ListConfig):
        return len(wanted)
    if wanted in ("auto", -1, "-1"):
        return max(torch.cuda.device_count(), 1) if cfg.trainer.accelerator != "cpu" else 1
    return int(wanted)
