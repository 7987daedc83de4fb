"""The operations of a training and the speed of the machine, which give the shortest possible time."""

import time
from collections.abc import Iterator

import torch
from cases import composed, now


def matrix_peak(accelerator: str) -> float:
    """Operations per second in products of large matrices: the peak of the machine."""
    device = torch.device(accelerator.split(",")[0].replace("gpu", "cuda"))
    dtype = torch.bfloat16 if "bfloat16" in accelerator else torch.float32
    side = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in _for_seconds(3):
        began = now()
        for _ in range(3):
            a @ b
        best = max(best, 3 * 2 * side**3 / (now() - began))
    return best


def operations_per_image(case: str) -> float:
    """Floating-point operations of a training step per image, counted by torch."""
    from hydra.utils import instantiate
    from torch.utils.flop_counter import FlopCounterMode

    module = instantiate(composed(case, "cpu, 32 bits", "run_dir=.").module, _convert_="all")
    with FlopCounterMode(display=False) as counter:
        module.objective(module.vae, torch.rand(8, 1, 28, 28), None)["loss"].backward()
    return counter.get_total_flops() / 8


def bytes_per_step(case: str, accelerator: str) -> float:
    """Bytes that a step must move.

    Outputs of layers are written once and read twice, and their gradients are written and read once, in the precision
    of the layers. Weights and the state of Adam have 32 bits.
    """
    from hydra.utils import instantiate

    cfg = composed(case, accelerator, "run_dir=.")
    module, size = instantiate(cfg.module, _convert_="all"), cfg.data.batch_size
    outputs: list[int] = []
    for network in (module.vae.encoder, module.vae.decoder):
        for layer in network.modules():
            if not list(layer.children()):
                layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output.numel()))
    module.objective(module.vae, torch.rand(size, 1, 28, 28), None)
    weights = sum(weight.numel() for weight in module.parameters())
    # Weights are read forwards and backwards, gradients are written. Then Adam reads four numbers and writes three.
    return sum(outputs) * 5 * (2 if "16" in accelerator else 4) + weights * 4 * 10


def bandwidth(accelerator: str) -> float:
    """Bytes per second that a large copy reads and writes."""
    device = torch.device(accelerator.split(",")[0].replace("gpu", "cuda"))
    source = torch.zeros(1 << (30 if device.type == "cuda" else 27), dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), 0.0
    for _ in _for_seconds(2):
        began = now()
        target.copy_(source)
        best = max(best, 2 * len(source) / (now() - began))
    return best


def _for_seconds(seconds: float) -> Iterator[None]:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        yield
