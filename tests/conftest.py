"""What several tests need: small models of every kind, a small data set, and where real data lies."""

import fcntl
import os
from functools import partial
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # there is a worker for each core, and what it starts stays there
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor, nn

import vaelab.commands.cli  # noqa: F401  (registers the resolvers of the configuration)
from tests.browser import chromium, page  # noqa: F401  (fixtures)
from tests.skips import require
from vaelab.commands.train import train
from vaelab.models.likelihoods import Likelihood, SquaredError
from vaelab.models.networks.mlp import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import DiagonalGaussian
from vaelab.models.priors import StandardNormal
from vaelab.models.vae import VAE

pytest_plugins = ["tests.skips"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def mnist_dir() -> str:
    """The folder that holds MNIST, where there is one."""
    require("data")
    return os.environ["DATA_DIR"]


def tiny_vae(likelihood: Likelihood, image_shape: tuple[int, int, int] = (1, 4, 4), latent_dim: int = 3) -> VAE:
    """A VAE small enough to be evaluated exactly."""
    return VAE(
        image_shape,
        latent_dim,
        partial(MLPEncoder, hidden_sizes=[8]),
        partial(MLPDecoder, hidden_sizes=[8]),
        likelihood,
        StandardNormal,
        DiagonalGaussian,
    )


class LinearGaussian(Likelihood):
    """N(outputs, std^2 I): with a linear decoder, the VAE whose marginal likelihood has a closed form."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def is_normalized(self, binary: bool) -> bool:
        return not binary

    def forward(self, outputs: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Independent(torch.distributions.Normal(outputs, self.std), 3)


class LinearDecoder(nn.Module):
    """x = W z + b."""

    def __init__(self, in_features: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, image_shape[0] * image_shape[1] * image_shape[2])
        self.image_shape = image_shape

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z).unflatten(1, self.image_shape)


@pytest.fixture
def linear_vae() -> VAE:
    """Probabilistic PCA as a VAE."""
    encoder = partial(MLPEncoder, hidden_sizes=[])
    return VAE((1, 3, 2), 2, encoder, LinearDecoder, LinearGaussian(0.7), StandardNormal, DiagonalGaussian)


@pytest.fixture
def mse_vae() -> VAE:
    return tiny_vae(SquaredError())


def composed(name: str, *overrides: str) -> DictConfig:
    """A configuration as the entry points compose it, but for the parts that only Hydra's own run provides."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(name, overrides=["~hydra", *overrides])


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session, the same for all processes that share its tests."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def _once(folder: Path, *overrides: str) -> Path:
    """Trains, unless another process has; whoever comes while it does waits."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "metrics.json").is_file():
            train(composed("train", f"run_dir={folder}", *overrides, "callbacks.gallery=null"))
    return folder


@pytest.fixture(scope="session")
def finished_run(of_all_workers: Path, tiny_data: list[str]) -> Path:
    """The folder of one training, for tests that read it and write elsewhere."""
    return _once(of_all_workers / "run", *tiny_data)


@pytest.fixture(scope="session")
def finished_conditional_run(of_all_workers: Path, tiny_data: list[str]) -> Path:
    """As ``finished_run``, of a model that is given classes, on images of two colours."""
    settings = ("conditional=true", "data.binarize=threshold", "logger=none")
    return _once(of_all_workers / "conditional", *tiny_data, *settings)


@pytest.fixture(scope="session")
def tiny_data(of_all_workers: Path) -> list[str]:
    """Overrides for a training of a second: few Digits, few epochs, small networks."""
    cache = of_all_workers / "digits"
    return [
        f"data.source.cache_dir={cache}",
        "model=mlp",
        "data.limit=64",
        "data.batch_size=16",
        "trainer.max_epochs=2",
        "trainer.accelerator=cpu",
        "logger=csv",
        "latent_dim=2",
    ]
