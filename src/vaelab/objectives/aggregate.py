r"""Objectives of the aggregate posterior :math:`q(z) = \frac1N \sum_n q(z|x_n)`, where all images lie together."""

import math
from typing import Literal

import torch
from torch import Tensor

from vaelab.models.distributions.latents import DiagonalGaussian
from vaelab.models.vae import VAE
from vaelab.objectives.base import Trace
from vaelab.objectives.warmup import AnnealedObjective, Warmup
from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.validation import NonNegativeNumber, checked

# Widths of kernels of which the sum is taken, as multiples of 2 * latent_dim: those of Tolstikhin et al.
_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

Kernel = Literal["inverse_multiquadratic", "gaussian"]
Sampling = Literal["stratified", "weighted"]


def log_sampling_weights(
    count: int, data_size: int, sampling: Sampling = "stratified", device: torch.device | None = None
) -> Tensor:
    r"""Logarithms of the weights by which a batch's posteriors estimate the aggregate posterior, shape (B, B).

    .. math:: q(z_i) \approx \sum_j w_{ij}\, q(z_i|x_j), \qquad z_i \sim q(z|x_i)

    ``weighted`` is minibatch-weighted sampling, :math:`w_{ij} = 1 / N B`, which counts an image's own posterior as if
    it were any other's and is biased. ``stratified`` is unbiased for batches drawn without replacement: the own one,
    known to be one of N, has the weight :math:`1 / N`, the others share what is left, :math:`(N - 1) / N (B - 1)` each.
    That is the mean of minibatch stratified sampling over the order of the batch, in which the paper lets a single
    image take the whole correction: the same expectation with less noise. Chen et al. (2018), arXiv 1802.04942,
    appendix C.

    Args:
        count: B, images in the batch. A single one is taken for the whole aggregate, for want of others.
        data_size: N, images in the data set.
        sampling: ``stratified`` or ``weighted``.
        device: of the result.
    """
    if sampling == "weighted":
        return torch.full((count, count), -math.log(data_size * count), device=device)
    if count == 1:
        return torch.zeros(1, 1, device=device)
    others = (data_size - 1) / (data_size * (count - 1))
    return torch.full((count, count), others, device=device).fill_diagonal_(1 / data_size).log()


def decompose(
    q_z: DiagonalGaussian,
    p_z: DiagonalGaussian,
    z: Tensor,
    log_weights: Tensor,
    batch: DiagonalGaussian | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The three parts of the divergence from a prior of independent dimensions, each in nats, shape (B,).

    .. math::
        \mathbb{E}_x \mathrm{KL}(q(z|x) \| p(z)) = \mathrm{KL}(q(z, x) \| q(z)\, p(x)) +
        \mathrm{KL}\bigl(q(z) \| {\textstyle\prod_j} q(z_j)\bigr) + \sum_j \mathrm{KL}(q(z_j) \| p(z_j))

    These are the mutual information of image and latents, the total correlation of the latents, and the divergence of
    each dimension by itself. The logarithm of an unbiased estimate of a density is too small on average, and so the
    mutual information is estimated too large, the more so the smaller the batch; their sum is not affected: it is the
    estimate :math:`\log q(z|x) - \log p(z)` by the same samples.

    Args:
        q_z: the posteriors, batch shape (B,).
        p_z: the prior.
        z: samples of them, (K, B, latent_dim).
        log_weights: see :func:`log_sampling_weights`, (B, B).
        batch: the posteriors that estimate q(z), where these are a part of them: then B' of them, and (B, B') weights.
    """
    # log q(z_ij|x_l), (K, B, B, latent_dim)
    pairs = (q_z if batch is None else batch).marginals().log_prob(z[:, :, None, :, None])
    log_q_z = (log_weights + pairs.sum(-1)).logsumexp(-1)
    log_q_dimensions = (log_weights.unsqueeze(-1) + pairs).logsumexp(-2).sum(-1)
    mutual_information = q_z.log_prob(z) - log_q_z
    total_correlation = log_q_z - log_q_dimensions
    dimension_kl = log_q_dimensions - p_z.log_prob(z)
    return mutual_information.mean(0), total_correlation.mean(0), dimension_kl.mean(0)


class BetaTCVAE(AnnealedObjective):
    r"""The beta-TCVAE (Chen et al. 2018, arXiv 1802.04942): of the divergence's parts, each has a weight of its own.

    .. math::
        \mathbb{E}_q[\log p(x|z)] - \alpha\, I(x; z) - \beta\, \mathrm{TC}(z) -
        \gamma \sum_j \mathrm{KL}(q(z_j) \| p(z_j))

    The weights' excess over 1 is what is added to the divergence, :math:`\mathrm{KL} + (\alpha - 1) I + (\beta - 1)
    \mathrm{TC} + (\gamma - 1) \sum_j \mathrm{KL}_j`: parts that weigh 1 bring no noise of their own.

    Reported beside the bound are the parts, :func:`decompose`: ``mutual_information``, ``total_correlation`` and
    ``dimension_kl``, which add up to ``kl`` where that is ``sampled``. In high dimensions a batch says little about
    q(z): the total correlation is then a penalty rather than an estimate. All of it depends on the sizes of batch and
    data set: validation's loss, in larger batches, cannot be compared with training's, nor with that of other sizes.

    Args:
        beta: of the total correlation.
        alpha, gamma: of the mutual information and of the dimensions' divergence.
        sampling: how a batch estimates q(z), see :func:`log_sampling_weights`.
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: of the weight of all three, from 0 to its value.

    Raises:
        NotImplementedError: the posterior or the prior is no Gaussian with diagonal covariance.
        ValueError: ``data_size`` was not set.
    """

    @checked
    def __init__(
        self,
        beta: NonNegativeNumber = 6.0,
        alpha: NonNegativeNumber = 1.0,
        gamma: NonNegativeNumber = 1.0,
        sampling: Sampling = "stratified",
        samples: int = 1,
        divergence: Literal["analytic", "sampled"] = "analytic",
        warmup: Warmup | None = None,
    ) -> None:
        super().__init__(samples, divergence, warmup)
        self.beta, self.alpha, self.gamma, self.sampling = beta, alpha, gamma, sampling

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        information, correlation, dimensions = self._parts(trace)
        weighted = (
            trace.kl + (self.alpha - 1) * information + (self.beta - 1) * correlation + (self.gamma - 1) * dimensions
        )
        return trace.terms(
            loss=(trace.reconstruction + self.warmup_factor() * weighted).mean(),
            mutual_information=information,
            total_correlation=correlation,
            dimension_kl=dimensions,
        )

    def _parts(self, trace: Trace) -> tuple[Tensor, Tensor, Tensor]:
        if not (isinstance(trace.q_z, DiagonalGaussian) and isinstance(trace.p_z, DiagonalGaussian)):
            raise NotImplementedError(
                "the total correlation needs Gaussians with diagonal covariance, as posterior and as prior: type "
                "posterior=diagonal_gaussian prior=standard_normal, or objective=beta"
            )
        if self.data_size is None:
            raise ValueError(
                "the total correlation depends on how many images there are to train with: set the objective's "
                "data_size, which a trainer with an image data module does by itself"
            )
        batch = DiagonalGaussian(trace.shard.gather(trace.q_z.mean), trace.shard.gather(trace.q_z.log_std))
        weights = log_sampling_weights(batch.batch_shape[0], self.data_size, self.sampling, trace.z.device)
        return decompose(trace.q_z, trace.p_z, trace.z, weights[trace.shard.rows], batch)


def maximum_mean_discrepancy(a: Tensor, b: Tensor, kernel: Kernel = "inverse_multiquadratic") -> Tensor:
    r"""The squared maximum mean discrepancy of two distributions, estimated by samples of them; its U-statistic.

    .. math::
        \frac{1}{n (n - 1)} \sum_{i \ne j} \bigl(k(a_i, a_j) + k(b_i, b_j)\bigr) - \frac{2}{n^2} \sum_{i, j} k(a_i, b_j)

    It is unbiased, and so negative now and then. The kernel is a sum over widths :math:`C = 2 D c`, c from 0.1 to 10:
    the inverse multiquadratic :math:`C / (C + \|a - b\|^2)`, or the Gaussian :math:`\exp(-\|a - b\|^2 / C)`. 2 D is
    the mean squared distance of two samples of N(0, I). Gretton et al. (2012), JMLR 13; Tolstikhin et al. (2018), arXiv
    1711.01558.

    Args:
        a, b: n samples of each, (..., n, D). With one of each there is no such estimate, and the result is 0.
        kernel: ``inverse_multiquadratic``, with heavy tails, so that what is far off feels it too; or ``gaussian``.

    Returns:
        Shape (...).
    """
    count = a.shape[-2]
    if count == 1:
        return a.new_zeros(a.shape[:-2])

    def similarity(left: Tensor, right: Tensor) -> Tensor:
        # Differences one by one: the faster way by a product of matrices loses what is close together.
        distance = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square()
        widths = [2 * left.shape[-1] * scale for scale in _SCALES]
        if kernel == "gaussian":
            return torch.stack([(-distance / width).exp() for width in widths]).sum(0)
        return torch.stack([width / (width + distance) for width in widths]).sum(0)

    def among_themselves(values: Tensor) -> Tensor:
        pairs = similarity(values, values)
        return (pairs.sum((-2, -1)) - pairs.diagonal(dim1=-2, dim2=-1).sum(-1)) / (count * (count - 1))

    return among_themselves(a) + among_themselves(b) - 2 * similarity(a, b).mean((-2, -1))


class MMD(AnnealedObjective):
    r"""InfoVAE and WAE-MMD: the aggregate posterior is held at the prior, single posteriors need not be.

    .. math:: \mathbb{E}_q[\log p(x|z)] - \alpha\, \mathrm{KL}(q(z|x) \| p(z)) - \lambda\, \mathrm{MMD}^2(q(z), p(z))

    Zhao, Song and Ermon (2019), arXiv 1706.02262, whose weights these are as :math:`1 - \alpha` and
    :math:`\alpha + \lambda - 1`; Tolstikhin et al. (2018), arXiv 1711.01558. Reported beside the bound is ``mmd``,
    :func:`maximum_mean_discrepancy` of the batch, a scalar without a unit. No gradient flows through the samples of
    the prior: one that learns does so by the divergence alone. Labels are not looked at: that latents of each class
    follow the prior, from which a conditional model's samples come, is left to ``kl_weight``.

    Args:
        mmd_weight: :math:`\lambda`.
        kl_weight: :math:`\alpha`; with 0 it is MMD-VAE, and WAE-MMD but for the posterior, which WAE makes a point.
        kernel: see :func:`maximum_mean_discrepancy`.
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: of both weights, from 0 to their values.

    Raises:
        NotImplementedError: the prior would learn, and ``kl_weight`` is 0.
    """

    @checked
    def __init__(
        self,
        mmd_weight: NonNegativeNumber = 100.0,
        kl_weight: NonNegativeNumber = 0.0,
        kernel: Kernel = "inverse_multiquadratic",
        samples: int = 1,
        divergence: Literal["analytic", "sampled"] = "analytic",
        warmup: Warmup | None = None,
    ) -> None:
        super().__init__(samples, divergence, warmup)
        self.mmd_weight, self.kl_weight, self.kernel = mmd_weight, kl_weight, kernel

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        if not self.kl_weight and list(vae.prior.parameters()):
            raise NotImplementedError(
                "nothing would train the prior, since no gradient flows through its samples: type "
                "module.objective.kl_weight=1, or prior=standard_normal"
            )
        # Samples of one image are not independent: each of the K goes by itself.
        z = trace.shard.gather(trace.z, 1)
        mmd = maximum_mean_discrepancy(z, trace.p_z.sample(z.shape[:-1]), self.kernel).mean()
        weighted = self.kl_weight * trace.kl.mean() + self.mmd_weight * mmd
        return trace.terms(loss=trace.reconstruction.mean() + self.warmup_factor() * weighted, mmd=mmd)
