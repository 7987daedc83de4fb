"""Likelihoods p(x|z): maps from the decoder's outputs to distributions over images.

A likelihood is a module that maps the decoder's outputs, shape (..., C * ``parameters_per_channel``, H, W), to a
:class:`torch.distributions.Distribution` with batch shape (...) and event shape (C, H, W). Its ``log_prob`` is summed
over pixels and channels, in nats. Its ``mean`` is the image to show.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.distributions import Laplace as LaplaceDistribution

from vaelab.models.distributions import pixels
from vaelab.models.distributions.pixels import BernoulliImages, UnnormalizedGaussian
from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.validation import PositiveNumber, checked


class Likelihood(nn.Module, ABC):
    """Base class. A subclass defines its number of parameters per channel, and when its densities are normalised."""

    parameters_per_channel = 1
    has_bits_per_dim = False  # whether log_prob is the probability of an 8-bit image, see bits_per_dim

    @abstractmethod
    def is_normalized(self, binary: bool) -> bool:
        """Whether ``log_prob`` is a log-likelihood in nats, for binary images (0 or 1) or for grey images."""

    @abstractmethod
    def forward(self, outputs: Tensor) -> Distribution:
        """Decoder outputs (..., C * parameters_per_channel, H, W) to p(x|z) with event shape (C, H, W)."""

    def log_prob(self, outputs: Tensor, x: Tensor, shard: Shard | None = None) -> Tensor:
        """log p(x|z), (...,), from decoder outputs (..., C * parameters_per_channel, H, W) and images x (B, C, H, W).

        Objectives call it. A likelihood whose parameters depend on the whole batch overrides it.

        Args:
            outputs: the outputs of the decoder.
            x: the images.
            shard: the part of their batch that the images are; ``None`` if they are the whole batch.
        """
        return self(outputs).log_prob(x)


def bits_per_dim(log_prob: Tensor, image_shape: Sequence[int]) -> Tensor:
    r"""Converts log-probabilities of 8-bit images from nats to bits per dimension; an uncompressed image has 8.

    .. math:: -\frac{\log p(x)}{C H W \log 2}

    Args:
        log_prob: log p(x) with a likelihood that ``has_bits_per_dim``, or a bound on it, any shape.
        image_shape: (C, H, W).
    """
    return -log_prob / (math.prod(image_shape) * math.log(2))


class Bernoulli(Likelihood):
    r"""Independent Bernoulli pixels whose logits are the outputs.

    .. math:: \log p(x|z) = \sum_i x_i \log p_i + (1 - x_i) \log(1 - p_i)

    It is a likelihood of binary images. For grey images the same sum is a negative cross-entropy: a useful loss, but no
    likelihood. Its exponential does not integrate to one over [0, 1] (Loaiza-Ganem and Cunningham 2019, arXiv
    1907.06845).
    """

    def is_normalized(self, binary: bool) -> bool:
        return binary

    def forward(self, outputs: Tensor) -> Distribution:
        return BernoulliImages(outputs.float())


class SquaredError(Likelihood):
    r"""Squared error :math:`w \sum_i (x_i - \sigma(o_i))^2` between the image and the sigmoid of the outputs.

    Up to a constant, it is the negative log-density of a Gaussian with variance :math:`1 / 2w`. Without this constant
    it is not a likelihood.

    Args:
        weight: :math:`w` > 0; the default 0.5 gives half the squared error, as for a Gaussian of unit variance.
    """

    @checked
    def __init__(self, weight: PositiveNumber = 0.5) -> None:
        super().__init__()
        self.weight = weight

    def is_normalized(self, binary: bool) -> bool:
        return False

    def forward(self, outputs: Tensor) -> Distribution:
        return UnnormalizedGaussian(outputs.float().sigmoid(), self.weight)


class ContinuousBernoulli(Likelihood):
    r"""Independent continuous Bernoulli pixels on [0, 1] whose logits are the outputs: a density of grey images.

    .. math:: \log p(x|z) = \sum_i x_i \log \lambda_i + (1 - x_i) \log(1 - \lambda_i) + \log C(\lambda_i)

    The mean is closer to one half than :math:`\lambda`, so black and white need larger outputs than with a Bernoulli
    (Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845).
    """

    def is_normalized(self, binary: bool) -> bool:
        return not binary  # at 0 and 1 the density can grow without bound: it is no metric for binary images

    def forward(self, outputs: Tensor) -> Distribution:
        return Independent(pixels.ContinuousBernoulli(outputs.float()), 3, validate_args=False)


class ScaledLikelihood(Likelihood):
    r"""Base class of independent pixels with the sigmoid of the outputs as location, and a scale s.

    A scale that is not a fixed number stays between bounds :math:`s_0 < s_1`,

    .. math:: s = s_0 + (s_1 - s_0)\, \sigma(a + c),

    and grows about as :math:`e^a` between them. It starts at a = 0. The constant c is such that s = 0.1 there, about
    the error of a partly trained decoder.

    Args:
        scale: a positive number, the scale of all pixels; ``learned``, one parameter for all pixels; or ``per_pixel``,
            an output of the decoder in C additional channels after the locations.
    """

    # Without a lower bound, the density of a pixel that is always black grows to infinity. The lower bound is half a
    # grey level, the rounding error of a pixel. Errors are at most one, so the best scale is at most one too.
    scale_bounds = (1 / 510, 1.0)
    _first_scale = 0.1

    def __init__(self, scale: float | str) -> None:
        super().__init__()
        self.scale = scale
        if scale == "learned":
            self.unbounded_scale = nn.Parameter(torch.zeros(()))
        elif scale == "per_pixel":
            self.parameters_per_channel = 2

    def location_and_scale(self, outputs: Tensor) -> tuple[Tensor, Tensor | float]:
        """Locations (..., C, H, W) in [0, 1], and scales of the same shape, or one scale for all pixels."""
        outputs = outputs.float()
        if self.scale == "per_pixel":
            location, unbounded = outputs.chunk(2, dim=-3)
            return location.sigmoid(), self._bounded(unbounded)
        return outputs.sigmoid(), self.common_scale()

    def common_scale(self) -> Tensor | float:
        """The common scale of all pixels, unless ``scale`` is ``per_pixel``."""
        return self._bounded(self.unbounded_scale) if self.scale == "learned" else float(self.scale)

    def _bounded(self, unbounded: Tensor) -> Tensor:
        low, high = self.scale_bounds
        first = math.log((self._first_scale - low) / (high - self._first_scale))
        return low + (high - low) * (unbounded + first).sigmoid()


class Gaussian(ScaledLikelihood):
    r"""Independent Gaussian pixels whose means are the sigmoid of the outputs.

    .. math:: \log p(x|z) = -\sum_i \left[ \frac{(x_i - \mu_i)^2}{2 s_i^2} + \log s_i + \tfrac12 \log 2\pi \right]

    With the ``optimal`` scale it is the sigma-VAE (Rybkin, Daniilidis and Levine 2021, arXiv 2006.13202). In training
    :math:`s^2` is the mean squared error of the batch, which maximises the mean of :math:`\log p(x|z)`. Choose
    ``learned`` for importance-weighted bounds, which are not such a mean. A scale that is computed from the images does
    not give a density of them. Outside training, the scale is therefore computed from a running mean of these errors:
    validation and test metrics use a proper density.

    Args:
        scale: the standard deviation: a positive number, ``learned`` or ``per_pixel``, see :class:`ScaledLikelihood`;
            or ``optimal``, with the same lower bound.
    """

    mean_squared_error: Tensor
    batches: Tensor
    _memory = 20  # batches in the running mean: enough for low noise, few enough to follow the decoder

    @checked
    def __init__(self, scale: PositiveNumber | Literal["learned", "per_pixel", "optimal"]) -> None:
        super().__init__(scale)
        if scale == "optimal":
            self.register_buffer("mean_squared_error", torch.tensor(self._first_scale**2))
            self.register_buffer("batches", torch.tensor(0))

    def is_normalized(self, binary: bool) -> bool:
        return not binary  # for binary pixels the density grows without bound as the scale falls

    def common_scale(self) -> Tensor | float:
        return self._closest(self.mean_squared_error) if self.scale == "optimal" else super().common_scale()

    def forward(self, outputs: Tensor) -> Distribution:
        location, scale = self.location_and_scale(outputs)
        return Independent(Normal(location, scale, validate_args=False), 3, validate_args=False)

    def log_prob(self, outputs: Tensor, x: Tensor, shard: Shard | None = None) -> Tensor:
        if not (self.scale == "optimal" and self.training and torch.is_grad_enabled()):
            return super().log_prob(outputs, x)
        location, _ = self.location_and_scale(outputs)
        error = (x - location).detach().square().mean()
        # The scale maximises the likelihood, so the gradient with respect to it is zero, and the error is detached.
        scale = self._fit(error if shard is None else shard.mean(error))
        return Normal(location, scale, validate_args=False).log_prob(x).sum((-3, -2, -1))

    def _closest(self, mean_squared_error: Tensor) -> Tensor:
        """The most likely scale for a mean squared error, not below the lower bound."""
        return mean_squared_error.sqrt().clamp(min=self.scale_bounds[0])

    def _fit(self, mean_squared_error: Tensor) -> Tensor:
        """The scale for the mean squared error of a batch, which is also added to the running mean."""
        is_finite = mean_squared_error.isfinite()  # an infinite or undefined error would stay in the mean forever
        self.batches += is_finite
        change = torch.where(is_finite, mean_squared_error - self.mean_squared_error, 0.0)
        self.mean_squared_error += change / self.batches.clamp(1, self._memory)
        return self._closest(mean_squared_error)


class Laplace(ScaledLikelihood):
    r"""Independent Laplace pixels whose locations are the sigmoid of the outputs: an absolute error.

    .. math:: \log p(x|z) = -\sum_i \left[ \frac{|x_i - \mu_i|}{s_i} + \log 2 s_i \right]

    It penalises large errors less than a Gaussian.

    Args:
        scale: s, the mean absolute error: a positive number, ``learned`` or ``per_pixel``, see
            :class:`ScaledLikelihood`.
    """

    @checked
    def __init__(self, scale: PositiveNumber | Literal["learned", "per_pixel"]) -> None:
        super().__init__(scale)

    def is_normalized(self, binary: bool) -> bool:
        return not binary  # for the same reason as a Gaussian

    def forward(self, outputs: Tensor) -> Distribution:
        location, scale = self.location_and_scale(outputs)
        return Independent(LaplaceDistribution(location, scale, validate_args=False), 3, validate_args=False)


class DiscretizedLogistic(ScaledLikelihood):
    r"""Independent 8-bit pixels: a logistic at the sigmoid of the outputs, discretised to the levels k/255.

    .. math:: \log p(x|z) = \sum_i \log \left[ F_i(x_i + \tfrac{1}{510}) - F_i(x_i - \tfrac{1}{510}) \right]

    F is the logistic distribution function, set to 0 below the lowest level and to 1 above the highest
    (Kingma et al. 2016, arXiv 1606.04934; Salimans et al. 2017, arXiv 1701.05517). It is a likelihood of binary images
    too.

    Args:
        scale: s: a positive number, ``learned`` or ``per_pixel``, see :class:`ScaledLikelihood`.
    """

    has_bits_per_dim = True
    # At the lower bound, a level at the location has probability 1 - 2e-7, so a smaller scale gains nothing. At the
    # upper bound and location 0.5, black and white have probability 0.49 each.
    scale_bounds = (1 / 8160, 16.0)

    @checked
    def __init__(self, scale: PositiveNumber | Literal["learned", "per_pixel"] = "per_pixel") -> None:
        super().__init__(scale)

    def is_normalized(self, binary: bool) -> bool:
        return True

    def forward(self, outputs: Tensor) -> Distribution:
        location, scale = self.location_and_scale(outputs)
        return Independent(pixels.DiscretizedLogistic(location, scale), 3, validate_args=False)
