"""Likelihoods p(x|z): how the decoder's outputs become a distribution over images, and a pixel's error is counted.

A likelihood is a module that maps the decoder's outputs, shape (..., C * ``parameters_per_channel``, H, W), to a
:class:`torch.distributions.Distribution` with batch shape (...) and event shape (C, H, W): ``log_prob`` is summed over
pixels and channels, in nats; ``mean`` is the picture to show.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, Independent

from vaelab.distributions import UnnormalizedGaussian


class Likelihood(nn.Module, ABC):
    """Base class. A subclass says how many numbers per channel it needs, and when its densities are normalised."""

    parameters_per_channel = 1

    @abstractmethod
    def is_normalized(self, binary: bool) -> bool:
        """Whether ``log_prob`` is a log-likelihood in nats of images that are binary (0 or 1), or else grey."""

    @abstractmethod
    def forward(self, outputs: Tensor) -> Distribution:
        """Decoder outputs (..., C * parameters_per_channel, H, W) to p(x|z) with event shape (C, H, W)."""


class Bernoulli(Likelihood):
    r"""Independent Bernoulli pixels whose logits are the outputs.

    .. math:: \log p(x|z) = \sum_i x_i \log p_i + (1 - x_i) \log(1 - p_i)

    A likelihood of binary images. On grey pixels the same sum is a cross-entropy, a sensible loss but no likelihood of
    anything: it does not integrate to one over [0, 1] (Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845).
    """

    def is_normalized(self, binary: bool) -> bool:
        return binary

    def forward(self, outputs: Tensor) -> Distribution:
        pixels = BernoulliDistribution(logits=outputs.float(), validate_args=False)
        return Independent(pixels, 3, validate_args=False)


class SquaredError(Likelihood):
    r"""Squared error :math:`w \sum_i (x_i - \sigma(o_i))^2` between the image and the sigmoid of the outputs.

    Up to a constant a Gaussian of fixed variance :math:`1 / 2w`; without that constant never a likelihood.

    Args:
        weight: :math:`w` > 0; 0.5, the default, is the half squared error of a Gaussian with unit variance.
    """

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"the squared error's weight must be positive, not {weight}")
        self.weight = weight

    def is_normalized(self, binary: bool) -> bool:
        return False

    def forward(self, outputs: Tensor) -> Distribution:
        return UnnormalizedGaussian(outputs.float().sigmoid(), self.weight)
