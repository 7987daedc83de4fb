"""Likelihoods p(x|z): how the decoder's outputs become a distribution over images, and a pixel's error is counted.

A likelihood is a module that maps the decoder's outputs, shape (..., C * ``parameters_per_channel``, H, W), to a
:class:`torch.distributions.Distribution` with batch shape (...) and event shape (C, H, W): ``log_prob`` is summed over
pixels and channels, in nats; ``mean`` is the picture to show.
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
    """Base class. A subclass says how many numbers per channel it needs, and when its densities are normalised."""

    parameters_per_channel = 1
    has_bits_per_dim = False  # whether log_prob is the probability of an 8-bit image, see bits_per_dim

    @abstractmethod
    def is_normalized(self, binary: bool) -> bool:
        """Whether ``log_prob`` is a log-likelihood in nats of images that are binary (0 or 1), or else grey."""

    @abstractmethod
    def forward(self, outputs: Tensor) -> Distribution:
        """Decoder outputs (..., C * parameters_per_channel, H, W) to p(x|z) with event shape (C, H, W)."""

    def log_prob(self, outputs: Tensor, x: Tensor, shard: Shard | None = None) -> Tensor:
        """log p(x|z), (...,), from decoder outputs (..., C * parameters_per_channel, H, W) and images x (B, C, H, W).

        Objectives call it. A likelihood that looks at more than one image of the batch overrides it.

        Args:
            outputs: of the decoder.
            x: the images.
            shard: which part of their batch the images are; ``None`` if they are all of it.
        """
        return self(outputs).log_prob(x)


def bits_per_dim(log_prob: Tensor, image_shape: Sequence[int]) -> Tensor:
    r"""Log-probabilities of 8-bit images, in nats, as bits per pixel and channel: an uncompressed image has 8.

    .. math:: -\frac{\log p(x)}{C H W \log 2}

    Args:
        log_prob: of likelihoods with ``has_bits_per_dim``, or a bound on it, any shape.
        image_shape: (C, H, W).
    """
    return -log_prob / (math.prod(image_shape) * math.log(2))


class Bernoulli(Likelihood):
    r"""Independent Bernoulli pixels whose logits are the outputs.

    .. math:: \log p(x|z) = \sum_i x_i \log p_i + (1 - x_i) \log(1 - p_i)

    A likelihood of binary images. On grey pixels the same sum is a cross-entropy, a sensible loss but no likelihood of
    anything: it does not integrate to one over [0, 1] (Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845).
    """

    def is_normalized(self, binary: bool) -> bool:
        return binary

    def forward(self, outputs: Tensor) -> Distribution:
        return BernoulliImages(outputs.float())


class SquaredError(Likelihood):
    r"""Squared error :math:`w \sum_i (x_i - \sigma(o_i))^2` between the image and the sigmoid of the outputs.

    Up to a constant a Gaussian of fixed variance :math:`1 / 2w`; without that constant never a likelihood.

    Args:
        weight: :math:`w` > 0; 0.5, the default, is the half squared error of a Gaussian with unit variance.
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
    r"""Independent pixels on [0, 1] whose logits are the outputs: a Bernoulli that is normalised for grey pixels.

    .. math:: \log p(x|z) = \sum_i x_i \log \lambda_i + (1 - x_i) \log(1 - \lambda_i) + \log C(\lambda_i)

    The mean is closer to one half than :math:`\lambda`, so it takes larger outputs to draw black and white
    (Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845).
    """

    def is_normalized(self, binary: bool) -> bool:
        return not binary  # a density on [0, 1] is unbounded at 0 and 1: on binary images it measures nothing

    def forward(self, outputs: Tensor) -> Distribution:
        return Independent(pixels.ContinuousBernoulli(outputs.float()), 3, validate_args=False)


class ScaledLikelihood(Likelihood):
    r"""Base class of independent pixels around the sigmoid of the outputs, with a scale s that says how close to it.

    A scale that is not a fixed number is kept between bounds :math:`s_0 < s_1`,

    .. math:: s = s_0 + (s_1 - s_0)\, \sigma(a + c),

    so that it grows as :math:`e^a` between them; c is such that a = 0, from which it starts, is s = 0.1, about the
    error of a decoder that has learned something.

    Args:
        scale: a positive number, the scale of all pixels; ``learned``, one for all pixels that is a parameter; or
            ``per_pixel``, which the decoder puts out after the locations, as C further channels.
    """

    # A pixel that is always black would send a density to infinity: half a grey level is as close as it can be known.
    # As errors do not exceed one, neither does the scale that is best for them.
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
        """Locations (..., C, H, W) in [0, 1], and scales of that shape or one for all pixels."""
        outputs = outputs.float()
        if self.scale == "per_pixel":
            location, unbounded = outputs.chunk(2, dim=-3)
            return location.sigmoid(), self._bounded(unbounded)
        return outputs.sigmoid(), self.common_scale()

    def common_scale(self) -> Tensor | float:
        """The scale of all pixels, where they have it in common."""
        return self._bounded(self.unbounded_scale) if self.scale == "learned" else float(self.scale)

    def _bounded(self, unbounded: Tensor) -> Tensor:
        low, high = self.scale_bounds
        first = math.log((self._first_scale - low) / (high - self._first_scale))
        return low + (high - low) * (unbounded + first).sigmoid()


class Gaussian(ScaledLikelihood):
    r"""Independent Gaussian pixels around the sigmoid of the outputs.

    .. math:: \log p(x|z) = -\sum_i \left[ \frac{(x_i - \mu_i)^2}{2 s_i^2} + \log s_i + \tfrac12 \log 2\pi \right]

    With the ``optimal`` scale it is the sigma-VAE (Rybkin, Daniilidis and Levine 2021, arXiv 2006.13202): in training
    :math:`s^2` is the mean squared error of the batch, at which the mean of :math:`\log p(x|z)` is largest; for
    importance-weighted bounds, which are no such mean, ``learned`` is the better choice. A scale that is computed
    from the images makes no density of them. Therefore a running mean of those errors is kept, and is the scale
    wherever no gradient is asked for: validation and test figures are of a proper density.

    Args:
        scale: the standard deviation: a positive number, ``learned``, ``per_pixel`` (see :class:`ScaledLikelihood`), or
            ``optimal``, with the same lower bound.
    """

    mean_squared_error: Tensor
    batches: Tensor
    _memory = 20  # batches that the running mean goes back: enough to be steady, too few to lag behind the decoder

    @checked
    def __init__(self, scale: PositiveNumber | Literal["learned", "per_pixel", "optimal"]) -> None:
        super().__init__(scale)
        if scale == "optimal":
            self.register_buffer("mean_squared_error", torch.tensor(self._first_scale**2))
            self.register_buffer("batches", torch.tensor(0))

    def is_normalized(self, binary: bool) -> bool:
        return not binary  # on two values a density grows without bound as the scale falls: it measures nothing

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
        # At its maximum the likelihood has no gradient in the scale, so the error needs none.
        scale = self._fit(error if shard is None else shard.mean(error))
        return Normal(location, scale, validate_args=False).log_prob(x).sum((-3, -2, -1))

    def _closest(self, mean_squared_error: Tensor) -> Tensor:
        """The most likely scale, given these errors, that is not below the bound."""
        return mean_squared_error.sqrt().clamp(min=self.scale_bounds[0])

    def _fit(self, mean_squared_error: Tensor) -> Tensor:
        """The scale for a batch of these errors, which the running mean takes in."""
        known = mean_squared_error.isfinite()  # what is not would never be forgotten
        self.batches += known
        change = torch.where(known, mean_squared_error - self.mean_squared_error, 0.0)
        self.mean_squared_error += change / self.batches.clamp(1, self._memory)
        return self._closest(mean_squared_error)


class Laplace(ScaledLikelihood):
    r"""Independent Laplace pixels around the sigmoid of the outputs: absolute errors, which forgive large ones.

    .. math:: \log p(x|z) = -\sum_i \left[ \frac{|x_i - \mu_i|}{s_i} + \log 2 s_i \right]

    Args:
        scale: s, the mean absolute error: a positive number, ``learned`` or ``per_pixel``, see
            :class:`ScaledLikelihood`.
    """

    @checked
    def __init__(self, scale: PositiveNumber | Literal["learned", "per_pixel"]) -> None:
        super().__init__(scale)

    def is_normalized(self, binary: bool) -> bool:
        return not binary  # as the Gaussian's

    def forward(self, outputs: Tensor) -> Distribution:
        location, scale = self.location_and_scale(outputs)
        return Independent(LaplaceDistribution(location, scale, validate_args=False), 3, validate_args=False)


class DiscretizedLogistic(ScaledLikelihood):
    r"""Independent 8-bit pixels: probabilities of the levels k/255, by a logistic around the sigmoid of the outputs.

    .. math:: \log p(x|z) = \sum_i \log \left[ F_i(x_i + \tfrac{1}{510}) - F_i(x_i - \tfrac{1}{510}) \right]

    F is the logistic distribution function, 0 below the lowest level and 1 above the highest
    (Kingma et al. 2016, arXiv 1606.04934; Salimans et al. 2017, arXiv 1701.05517). Binary images are its images too.

    Args:
        scale: s: a positive number, ``learned`` or ``per_pixel``, see :class:`ScaledLikelihood`.
    """

    has_bits_per_dim = True
    # At the lower bound a location on a level gives it all but 2e-7 of the probability: closer gains nothing. At the
    # upper one black and white share a pixel between them, 49 to 49 in a hundred.
    scale_bounds = (1 / 8160, 16.0)

    @checked
    def __init__(self, scale: PositiveNumber | Literal["learned", "per_pixel"] = "per_pixel") -> None:
        super().__init__(scale)

    def is_normalized(self, binary: bool) -> bool:
        return True

    def forward(self, outputs: Tensor) -> Distribution:
        location, scale = self.location_and_scale(outputs)
        return Independent(pixels.DiscretizedLogistic(location, scale), 3, validate_args=False)
