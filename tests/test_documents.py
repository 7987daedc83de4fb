"""The experiments that reproduce documents: their networks to the parameter, their losses to the constant."""

import pytest
import torch
from hydra.utils import instantiate

from tests.conftest import composed
from vaelab.training.lightning_module import VAEModule

# Worked out by hand from each document: convolutions k * k * in * out + out, dense layers in * out + out.
PARAMETERS = {
    "mathworks_mnist": (
        (9 * 1 * 32 + 32) + (9 * 32 * 64 + 64) + (7 * 7 * 64 * 40 + 40),
        (49 * 20 * 64 + 64) + (9 * 64 * 64 + 64) + (9 * 64 * 32 + 32) + (9 * 32 * 1 + 1),
    ),
    "mathworks_digits": (
        (9 * 1 * 32 + 32) + (9 * 32 * 64 + 64) + (7 * 7 * 64 * 64 + 64),
        (32 * 7 * 7 * 64 + 7 * 7 * 64) + (9 * 64 * 64 + 64) + (9 * 64 * 32 + 32) + (9 * 32 * 1 + 1),
    ),
    "wolfram_mnist": (
        (16 * 1 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 64 + 64) + 2 * (5184 * 8 + 8),
        (8 * 5184 + 5184) + (9 * 64 * 64 + 64) + (9 * 64 * 32 + 32) + (16 * 32 * 1 + 1),
    ),
    "tensorflow_mnist": (
        (9 * 1 * 32 + 32) + (9 * 32 * 64 + 64) + (6 * 6 * 64 * 4 + 4),
        (2 * 7 * 7 * 32 + 7 * 7 * 32) + (9 * 32 * 64 + 64) + (9 * 64 * 32 + 32) + (9 * 32 * 1 + 1),
    ),
}
PARAMETERS["keras_fashion"] = PARAMETERS["tensorflow_mnist"]


def _module(experiment: str) -> VAEModule:
    module = instantiate(composed("train", "run_dir=/nowhere", f"experiment={experiment}").module, _convert_="all")
    assert isinstance(module, VAEModule)
    return module


@pytest.mark.parametrize("experiment", PARAMETERS)
def test_networks_have_the_documents_parameters(experiment: str) -> None:
    vae = _module(experiment).vae
    encoder, decoder = (
        sum(parameter.numel() for module in modules for parameter in module.parameters())
        for modules in ((vae.encoder, vae.posterior), (vae.decoder,))
    )
    assert (encoder, decoder) == PARAMETERS[experiment]


@pytest.mark.parametrize(
    ("experiment", "weight"), [("mathworks_mnist", 0.5), ("mathworks_digits", 0.5), ("wolfram_mnist", 1.0)]
)
def test_squared_errors_are_the_documents(experiment: str, weight: float) -> None:
    """Sums over pixels and latents, means over images: the documents' own formulas, with a head of log variances."""
    module = _module(experiment)
    x = torch.rand(6, 1, 28, 28)
    torch.manual_seed(3)
    loss = module.objective(module.vae, x)["loss"]
    torch.manual_seed(3)
    q = module.vae.encode(x)
    z = q.mean + q.stddev * torch.randn(1, 6, module.vae.latent_dim)[0]
    predicted = torch.sigmoid(module.vae.decoder(z))
    log_variance = q.variance.log()
    kl = -0.5 * (1 + log_variance - q.mean**2 - log_variance.exp()).sum(1)
    expected = (weight * (predicted - x) ** 2).sum((1, 2, 3)) + kl
    torch.testing.assert_close(loss, expected.mean())


def test_the_tensorflow_loss_is_the_documents() -> None:
    module = _module("tensorflow_mnist")
    x = torch.rand(6, 1, 28, 28).round()
    torch.manual_seed(3)
    loss = module.objective(module.vae, x)["loss"]
    torch.manual_seed(3)
    mean, log_variance = module.vae.posterior.get_submodule("head")(module.vae.encoder(x)).chunk(2, 1)
    z = torch.randn(1, 6, 2)[0] * torch.exp(0.5 * log_variance) + mean

    def log_normal_pdf(sample: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
        log_2pi = torch.log(torch.tensor(2.0 * torch.pi))
        return (-0.5 * ((sample - mean) ** 2 * torch.exp(-log_variance) + log_variance + log_2pi)).sum(1)

    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(module.vae.decoder(z), x, reduction="none")
    zero = torch.zeros(())
    log_weights = -cross_entropy.sum((1, 2, 3)) + log_normal_pdf(z, zero, zero) - log_normal_pdf(z, mean, log_variance)
    torch.testing.assert_close(loss, -log_weights.mean())


def test_glorot_initialisation_is_that_of_keras() -> None:
    """Uniform with variance 2 / (fan_in + fan_out), biases zero."""
    for experiment in ("mathworks_mnist", "tensorflow_mnist"):
        vae = _module(experiment).vae
        assert all(not parameter.any() for name, parameter in vae.named_parameters() if name.endswith("bias"))
        kernel = vae.encoder.get_parameter(
            "convolutions.2.weight" if experiment == "tensorflow_mnist" else "convolutions.4.weight"
        )
        bound = (6 / (9 * 32 + 9 * 64)) ** 0.5
        assert 0.99 * bound < kernel.abs().max() <= bound
        torch.testing.assert_close(kernel.var(), torch.tensor(bound**2 / 3), rtol=0.05, atol=0)
