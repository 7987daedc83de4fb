"""Random numbers: the fixed seed of every evaluation, and the states of torch's generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# Validation and test draw their latent samples with this seed. A metric is then the same whenever it is computed, and
# two checkpoints are compared on the same noise.
EVALUATION_SEED = 20131220


@contextmanager
def evaluation_seed(device: torch.device) -> Iterator[None]:
    """Seeds the random generators for an evaluation, and restores their states afterwards."""
    before = random_state(device)
    torch.manual_seed(EVALUATION_SEED)
    try:
        yield
    finally:
        set_random_state(before, device)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the random generators from which a model on this device draws."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restores states that :func:`random_state` returned, as far as this device has such generators."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    if "mps" in state and device.type == "mps":
        torch.mps.set_rng_state(state["mps"].cpu())


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, and the seed of evaluations; afterwards each part is in its former mode."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad(), evaluation_seed(next(module.parameters()).device):
            yield
    finally:
        for part in training:
            part.training = True
