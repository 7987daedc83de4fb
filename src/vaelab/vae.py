"""The variational autoencoder as mathematics: five choices put together, and what can be asked of them.

.. math:: p(x) = \\int p(x|z)\\, p(z)\\, dz, \\qquad q(z|x) \\approx p(z|x)

Kingma and Welling (2014), arXiv 1312.6114; Rezende, Mohamed and Wierstra (2014), arXiv 1401.4082.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab import _mkl
from vaelab.likelihoods import Likelihood

_mkl.settle()  # every model is built from here, before anything is computed

class VAE(nn.Module):
    """A decoder p(x|z), a prior p(z) and an encoder q(z|x), each of them any that fits.

    The parts come as factories (a class, a ``functools.partial``, in YAML ``_partial_: true``), because their sizes
    depend on each other: the posterior's on the encoder's features, the decoder's outputs on the likelihood's
    parameters.

    Args:
        image_shape: (C, H, W).
        latent_dim: the number of latent dimensions.
        encoder: ``encoder(image_shape=...)``, a module from (B, C, H, W) to (B, ``encoder.out_features``).
        decoder: ``decoder(in_features=..., image_shape=...)``, a module from (B, in_features) to (B, *image_shape).
        likelihood: a :class:`~vaelab.likelihoods.Likelihood`.
        prior: ``prior(latent_dim=...)``, see :mod:`vaelab.priors`.
        posterior: ``posterior(in_features=..., latent_dim=...)``, see :mod:`vaelab.posteriors`.
        initialize: called with every module once, to set its first weights; ``None`` for torch's own.

    Raises:
        ValueError: a size is not a positive integer.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int,
        encoder: Callable[..., nn.Module],
        decoder: Callable[..., nn.Module],
        likelihood: Likelihood,
        prior: Callable[..., nn.Module],
        posterior: Callable[..., nn.Module],
        initialize: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(latent_dim, int) or latent_dim < 1:
            raise ValueError(f"latent_dim must be a positive integer, not {latent_dim!r}")
        if len(image_shape) != 3 or not all(isinstance(size, int) and size > 0 for size in image_shape):
            raise ValueError(f"image_shape must be three positive integers (C, H, W), not {list(image_shape)}")
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.encoder = encoder(image_shape=self.image_shape)
        self.posterior = posterior(in_features=self.encoder.out_features, latent_dim=latent_dim)
        self.prior = prior(latent_dim=latent_dim)
        self.decoder = decoder(
            in_features=latent_dim, image_shape=(channels * likelihood.parameters_per_channel, height, width)
        )
        if initialize is not None:
            self.apply(initialize)

    def encode(self, x: Tensor) -> Distribution:
        """q(z|x) of images (B, C, H, W): batch shape (B,), event shape (latent_dim,)."""
        return self.posterior(self.encoder(x))

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z) of latents (..., latent_dim): batch shape (...), event shape (C, H, W)."""
        outputs = self.decoder(z.flatten(end_dim=-2))
        return self.likelihood(outputs.unflatten(0, z.shape[:-1]))

    def sample(self, count: int) -> Tensor:
        """Pictures (count, C, H, W) of latents drawn from the prior: the means of p(x|z), z ~ p(z)."""
        return self.decode(self.prior().sample((count,))).mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) of the posterior means of images (B, C, H, W): the mean of p(x|E[z|x])."""
        return self.decode(self.encode(x).mean).mean

    def log_weights(self, x: Tensor, samples: int) -> Tensor:
        r"""Logarithms of importance weights of images (B, C, H, W), in nats, shape (samples, B).

        .. math:: \log w_k = \log p(x|z_k) + \log p(z_k) - \log q(z_k|x), \qquad z_k \sim q(z|x)

        Their mean estimates the ELBO; the logarithm of the mean weight is the importance-weighted bound on log p(x)
        (Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519).
        """
        q_z = self.encode(x)
        z = q_z.rsample(torch.Size((samples,)))  # (K, B, latent_dim)
        return self.decode(z).log_prob(x) + self.prior().log_prob(z) - q_z.log_prob(z)
