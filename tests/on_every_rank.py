"""Trains one thing after the other in each of the processes that torchrun has started: see runtime/test_distributed.py.

torchrun --nproc_per_node=3 -m tests.on_every_rank <folder> <cache>
"""

import json
import os
import sys
from pathlib import Path

from tests.conftest import composed
from vaelab.commands.train import train

# Batches of 17 images, and validation and test batches of 16, none of which three can share evenly.
COMMON = [
    *("model=mlp", "latent_dim=3", "logger=csv", "callbacks=none", "data.limit=100", "data.validation=37"),
    *("data.batch_size=17", "data.eval_batch_size=16", "trainer.max_epochs=2", "trainer.log_every_n_steps=4"),
    *("module.vae.encoder.hidden_sizes=[32]", "module.vae.decoder.hidden_sizes=[32]"),
]
SAMPLED = "module.objective.divergence=sampled"
CASES = {
    "noise": ["objective=elbo_sampled", "data.binarize=dynamic", "trainer.accumulate_grad_batches=2"],
    "fewer_images_than_processes": ["data.limit=19", "data.batch_size=9", "data.eval_batch_size=9"],
    "total_correlation": ["objective=beta_tc", "conditional=true"],
    "discrepancy": ["objective=mmd", "prior=gaussian_mixture", "module.objective.kl_weight=1", SAMPLED],
    "free_bits": ["objective=free_bits", "module.objective.free_nats=2"],
    "capacity": ["objective=capacity", "posterior=full_gaussian"],
    "optimal_scale": ["loss=gaussian_optimal", "posterior=iaf", SAMPLED],
    "nothing_trains_the_prior": ["objective=autoencoder", "prior=vampprior", SAMPLED],
    "mixed_precision": ["accelerator=cpu_bf16"],
}


def settings(name: str, folder: Path, cache: str) -> list[str]:
    """What is typed for one of the cases, but for the number of processes."""
    return [*COMMON, f"data.source.cache_dir={cache}", *CASES[name], f"run_dir={folder / name}"]


if __name__ == "__main__":
    processes = ["trainer.accelerator=cpu", "trainer.strategy=ddp", f"trainer.devices={os.environ['WORLD_SIZE']}"]
    home = Path(sys.argv[1])
    for case in CASES:
        figures = train(composed("train", *settings(case, home, sys.argv[2]), *processes))
        (home / f"{case}.{os.environ['RANK']}.json").write_text(json.dumps(figures))
