"""Distributions over latent vectors that :mod:`torch.distributions` lacks, with their closed-form KL divergences.

Log-densities are summed over the latent dimensions, in nats, and have the batch shape. Arguments are not validated,
because validation would make every training step wait for the device.
"""

import math

import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    MultivariateNormal,
    constraints,
    kl_divergence,
    register_kl,
)

from vaelab.models.distributions.flows import Composition
from vaelab.runtime.data_parallel import Shard

Sizes = torch.Size | list[int] | tuple[int, ...]

ACTIVE_VARIANCE = 0.01  # a dimension is active if its codes vary more than this over images (arXiv 1509.00519)
_LOG_2PI = math.log(2 * math.pi)


def _noise(sample_shape: Sizes, mean: Tensor, shard: Shard | None) -> Tensor:
    """Standard normal noise for samples around means (..., D); see :meth:`Shard.randn`."""
    shape = torch.Size(sample_shape) + mean.shape
    return torch.randn(shape, dtype=mean.dtype, device=mean.device) if shard is None else shard.randn(shape, mean)


class Latent(Distribution):
    """The interface of distributions over latent vectors: posteriors and priors."""

    has_rsample = True

    @property
    def centre(self) -> Tensor:
        """A latent vector (..., D) that represents the distribution in plots and metrics: the mean, if it is known."""
        return self.mean

    def rsample(self, sample_shape: Sizes = (), shard: Shard | None = None) -> Tensor:
        """Samples (*sample_shape, ..., D), differentiable in the parameters.

        Args:
            sample_shape: the shape of the set of samples.
            shard: the part of a batch of images whose posteriors these are; ``None`` if it is no part of one.
        """
        raise NotImplementedError

    def rsample_and_log_prob(self, sample_shape: Sizes = (), shard: Shard | None = None) -> tuple[Tensor, Tensor]:
        """Samples (*sample_shape, ..., D) and their log-densities (*sample_shape, ...), in one pass through a flow."""
        z = self.rsample(sample_shape, shard)
        return z, self.log_prob(z)

    def detach(self) -> "Latent":
        """The same distribution with detached parameters.

        Raises:
            NotImplementedError: some of its parameters are weights of a network.
        """
        raise NotImplementedError


class DiagonalGaussian(Latent):
    r"""Gaussian with a diagonal covariance, :math:`N(\mu, \mathrm{diag}(\sigma^2))`, over the last dimension.

    Its parameter is the logarithm of the standard deviation, which is what networks compute. This avoids the rounding
    errors of an exponential followed by a logarithm.

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

    def rsample(self, sample_shape: Sizes = (), shard: Shard | None = None) -> Tensor:
        return self._mean + self.log_std.exp() * _noise(sample_shape, self._mean, shard)

    def rsample_and_log_prob(self, sample_shape: Sizes = (), shard: Shard | None = None) -> tuple[Tensor, Tensor]:
        # The density is computed from the noise, because a rounded sample of a narrow Gaussian loses it.
        noise = _noise(sample_shape, self._mean, shard)
        return self._mean + self.log_std.exp() * noise, self._log_prob_of_noise(noise)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._log_prob_of_noise((value - self._mean) * (-self.log_std).exp())

    def _log_prob_of_noise(self, noise: Tensor) -> Tensor:
        return -(0.5 * (noise.square() + _LOG_2PI) + self.log_std).sum(-1)

    def entropy(self) -> Tensor:
        return (0.5 * (1 + _LOG_2PI) + self.log_std).sum(-1)

    def marginals(self) -> "DiagonalGaussian":
        """The marginal distribution of each dimension: batch shape (..., D), event shape (1,)."""
        return DiagonalGaussian(self._mean.unsqueeze(-1), self.log_std.unsqueeze(-1))

    def detach(self) -> "DiagonalGaussian":
        return DiagonalGaussian(self._mean.detach(), self.log_std.detach())


class StandardNormal(DiagonalGaussian):
    """``N(0, I)``, in a class of its own because its KL divergences are cheaper.

    Args:
        zero: a vector of zeros, shape (D,), on the device and in the precision of the samples.
    """

    def __init__(self, zero: Tensor) -> None:
        super().__init__(zero, zero)

    def log_prob(self, value: Tensor) -> Tensor:
        return -0.5 * (value.square() + _LOG_2PI).sum(-1)


class FullGaussian(MultivariateNormal, Latent):
    r"""Gaussian with a full covariance, :math:`N(\mu, L L^\top)`, over the last dimension.

    Args:
        mean: :math:`\mu`, shape (..., D).
        scale_tril: L, lower triangular with a positive diagonal, shape (..., D, D).
    """

    def __init__(self, mean: Tensor, scale_tril: Tensor) -> None:
        super().__init__(mean, scale_tril=scale_tril, validate_args=False)

    def rsample(self, sample_shape: Sizes = (), shard: Shard | None = None) -> Tensor:
        # Mixed precision is meant for the matrix products of networks: here it would round the samples.
        noise = _noise(sample_shape, self.loc, shard)
        with torch.autocast(self.loc.device.type, enabled=False):
            return self.loc + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def marginals(self) -> DiagonalGaussian:
        """The marginal distribution of each dimension: batch shape (..., D), event shape (1,)."""
        return DiagonalGaussian(self.mean, 0.5 * self.variance.log()).marginals()

    def detach(self) -> "FullGaussian":
        return FullGaussian(self.loc.detach(), self.scale_tril.detach())


class Mixture(Latent):
    r"""Mixture of distributions, :math:`p(z) = \sum_k \pi_k\, p_k(z)`.

    Samples are differentiable in the parameters of the components, but not in the weights. Densities are differentiable
    in both.

    Args:
        logits: :math:`\log \pi_k` up to a constant, shape (N,).
        components: :math:`p_k`, batch shape (N,).
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = False  # not with respect to the weights

    def __init__(self, logits: Tensor, components: Latent) -> None:
        self.logits, self.components = logits, components
        super().__init__(components.batch_shape[:-1], components.event_shape, validate_args=False)

    def rsample(self, sample_shape: Sizes = (), shard: Shard | None = None) -> Tensor:
        chosen = Categorical(logits=self.logits, validate_args=False).sample(torch.Size(sample_shape))  # (...)
        z = self.components.rsample(torch.Size(sample_shape))  # (..., N, D)
        return torch.take_along_dim(z, chosen[..., None, None], -2).squeeze(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        terms = self.logits.log_softmax(-1) + self.components.log_prob(value.unsqueeze(-2))  # (..., N)
        return terms.logsumexp(-1)


class Flow(Latent):
    r"""The distribution of z = f(u), u ~ p(u), for an invertible map f.

    .. math:: \log p(z) = \log p(u) - \log |\det \partial f / \partial u|, \qquad u = f^{-1}(z)

    Its mean and variance have no closed form. Its ``centre`` is f at the centre of p(u), which is not the mean.

    Args:
        base: p(u).
        transform: f, see :mod:`vaelab.models.distributions.flows`.
        context: further arguments of f.
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, base: Latent, transform: Composition, *context: Tensor) -> None:
        self.base, self.transform, self.context = base, transform, context
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def centre(self) -> Tensor:
        return self.transform(self.base.centre, *self.context)[0]

    def rsample(self, sample_shape: Sizes = (), shard: Shard | None = None) -> Tensor:
        return self.transform(self.base.rsample(sample_shape, shard), *self.context)[0]

    def rsample_and_log_prob(self, sample_shape: Sizes = (), shard: Shard | None = None) -> tuple[Tensor, Tensor]:
        u, log_prob = self.base.rsample_and_log_prob(sample_shape, shard)
        z, log_det = self.transform(u, *self.context)
        return z, log_prob - log_det

    def log_prob(self, value: Tensor) -> Tensor:
        u, log_det = self.transform.inverse(value, *self.context)
        return self.base.log_prob(u) - log_det


@register_kl(DiagonalGaussian, DiagonalGaussian)
def _kl_diagonal_diagonal(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    log_ratio = q.log_std - p.log_std
    distance = (q.mean - p.mean) * (-p.log_std).exp()
    return 0.5 * ((2 * log_ratio).exp() + distance.square() - 1 - 2 * log_ratio).sum(-1)


@register_kl(DiagonalGaussian, StandardNormal)
def _kl_diagonal_standard(q: DiagonalGaussian, p: StandardNormal) -> Tensor:
    # Kingma and Welling (2014), appendix B: arXiv 1312.6114.
    return 0.5 * (q.variance + q.mean.square() - 1 - 2 * q.log_std).sum(-1)


@register_kl(FullGaussian, DiagonalGaussian)
def _kl_full_diagonal(q: FullGaussian, p: DiagonalGaussian) -> Tensor:
    inverse_std = (-p.log_std).exp()
    spread = (q.scale_tril * inverse_std[..., None]).square().sum((-2, -1))
    distance = ((q.mean - p.mean) * inverse_std).square()
    log_ratio = q.scale_tril.diagonal(dim1=-2, dim2=-1).log() - p.log_std
    return 0.5 * (spread + (distance - 1 - 2 * log_ratio).sum(-1))


def dimension_kls(q_z: Latent, p_z: Latent) -> Tensor | None:
    """KL(q(z_j|x) || p(z_j)) for each dimension, (B, D), in nats; ``None`` if it has no closed form.

    For a diagonal Gaussian q, their sum is the KL divergence. For a full covariance, their sum is a lower bound on it.
    """
    if not isinstance(q_z, DiagonalGaussian | FullGaussian) or not isinstance(p_z, DiagonalGaussian):
        return None
    return kl_divergence(q_z.marginals(), p_z.marginals())


def active_units(codes: Tensor) -> Tensor:
    """Whether each dimension of codes (N, D) has a variance above 0.01 over images, (D,) (arXiv 1509.00519).

    A code is the mean of a posterior, or its centre if its mean has no closed form, as for a flow.
    """
    return codes.var(0) > ACTIVE_VARIANCE
