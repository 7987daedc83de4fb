"""The distributions that :mod:`torch.distributions` lacks, with the closed forms between them.

All are distributions over one image or one latent vector: their densities are summed over the event (pixels, latent
dimensions), in nats, and what is left are the batch dimensions. Arguments are not validated, because that would make
every training step wait for the device.
"""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

_LOG_2PI = math.log(2 * math.pi)


class Latent(Distribution):
    """What the VAE asks of its distributions over latent vectors, posteriors and priors alike."""

    has_rsample = True

    @property
    def centre(self) -> Tensor:
        """One latent vector (..., D) to stand for all of them in pictures and measures: the mean, if it is known."""
        return self.mean

    def rsample_and_log_prob(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Samples (*sample_shape, ..., D) and their log-densities (*sample_shape, ...), which flows get for nothing."""
        z = self.rsample(torch.Size(sample_shape))
        return z, self.log_prob(z)

    def detach(self) -> "Latent":
        """The same distribution, through whose parameters no gradient flows.

        Raises:
            NotImplementedError: its parameters are weights of a network.
        """
        raise NotImplementedError


class DiagonalGaussian(Latent):
    r"""Gaussian with a diagonal covariance, :math:`N(\mu, \mathrm{diag}(\sigma^2))`, over the last dimension.

    Parametrised by the logarithm of the standard deviation, which is what networks put out, so that nothing is lost in
    taking an exponential and its logarithm.

    Args:
        mean: :math:`\mu`, shape (..., D).
        log_std: :math:`\log \sigma`, shape (..., D).
    """

    arg_constraints = {"mean": constraints.real_vector, "log_std": constraints.real_vector}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self._mean, self.log_std = mean, log_std
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def mode(self) -> Tensor:
        return self._mean

    @property
    def stddev(self) -> Tensor:
        return self.log_std.exp()

    @property
    def variance(self) -> Tensor:
        return (2 * self.log_std).exp()

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        noise = torch.randn(
            torch.Size(sample_shape) + self._mean.shape, dtype=self._mean.dtype, device=self._mean.device
        )
        return self._mean + self.log_std.exp() * noise

    def log_prob(self, value: Tensor) -> Tensor:
        standardised = (value - self._mean) * (-self.log_std).exp()
        return -(0.5 * (standardised.square() + _LOG_2PI) + self.log_std).sum(-1)

    def entropy(self) -> Tensor:
        return (0.5 * (1 + _LOG_2PI) + self.log_std).sum(-1)

    def marginals(self) -> "DiagonalGaussian":
        """The distributions of the single dimensions: batch shape (..., D), event shape (1,)."""
        return DiagonalGaussian(self._mean.unsqueeze(-1), self.log_std.unsqueeze(-1))

    def detach(self) -> "DiagonalGaussian":
        return DiagonalGaussian(self._mean.detach(), self.log_std.detach())


class StandardNormal(DiagonalGaussian):
    """``N(0, I)``, kept apart from other diagonal Gaussians because its divergences are cheaper.

    Args:
        zero: a vector of zeros, shape (D,), on the device and in the precision of the samples.
    """

    def __init__(self, zero: Tensor) -> None:
        super().__init__(zero, zero)

    def log_prob(self, value: Tensor) -> Tensor:
        return -0.5 * (value.square() + _LOG_2PI).sum(-1)


class UnnormalizedGaussian(Distribution):
    r"""Weighted squared error in the clothes of a distribution over images: *not* a normalised density.

    .. math:: \log \tilde p(x) = -w \sum_i (x_i - \mu_i)^2

    This is :math:`N(\mu, \tfrac{1}{2w} I)` without its normalising constant, so that values from it can be compared
    with each other for one :math:`w` and with nothing else. Samples are drawn from that Gaussian.

    Args:
        mean: :math:`\mu`, shape (..., C, H, W).
        weight: :math:`w`; one half gives half the squared error, i.e. unit variance.
    """

    arg_constraints = {"mean": constraints.independent(constraints.real, 3)}  # noqa: RUF012
    support = constraints.independent(constraints.real, 3)

    def __init__(self, mean: Tensor, weight: float) -> None:
        self._mean, self.weight = mean, weight
        super().__init__(mean.shape[:-3], mean.shape[-3:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def mode(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self._mean, 1 / (2 * self.weight))

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        with torch.no_grad():
            mean = self._mean.expand(torch.Size(sample_shape) + self._mean.shape)
            return mean + (2 * self.weight) ** -0.5 * torch.randn_like(mean)

    def log_prob(self, value: Tensor) -> Tensor:
        return -self.weight * (value - self._mean).square().sum((-3, -2, -1))


@register_kl(DiagonalGaussian, DiagonalGaussian)
def _kl_diagonal_diagonal(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    log_ratio = q.log_std - p.log_std
    distance = (q.mean - p.mean) * (-p.log_std).exp()
    return 0.5 * ((2 * log_ratio).exp() + distance.square() - 1 - 2 * log_ratio).sum(-1)


@register_kl(DiagonalGaussian, StandardNormal)
def _kl_diagonal_standard(q: DiagonalGaussian, p: StandardNormal) -> Tensor:
    # Kingma and Welling (2014), appendix B: arXiv 1312.6114.
    return 0.5 * (q.variance + q.mean.square() - 1 - 2 * q.log_std).sum(-1)
