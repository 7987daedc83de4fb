r"""Objectives of the aggregate posterior :math:`q(z) = \frac1N \sum_n q(z|x_n)` of all images."""

import math
from typing import Literal

import torch
from torch import Tensor

from vaelab.models.distributions.latents import DiagonalGaussian
from vaelab.models.vae import VAE
from vaelab.objectives.base import Trace
from vaelab.objectives.warmup import AnnealedObjective, Warmup
from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.validation import NonNegativeNumber, PositiveInt, checked

# The kernel is a sum over these widths, in multiples of 2 * latent_dim. They are those of Tolstikhin et al. (2018).
_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

Kernel = Literal["inverse_multiquadratic", "gaussian"]
Sampling = Literal["stratified", "weighted"]


def log_sampling_weights(
    count: int, data_size: int, sampling: Sampling = "stratified", device: torch.device | None = None
) -> Tensor:
    r"""Logarithms of the weights by which a batch's posteriors estimate the aggregate posterior, shape (B, B).

    .. math:: q(z_i) \approx \sum_j w_{ij}\, q(z_i|x_j), \qquad z_i \sim q(z|x_i)

    ``weighted`` is minibatch-weighted sampling, :math:`w_{ij} = 1 / (N B)`. It gives an image's own posterior the same
    weight as the others, and is biased. ``stratified`` is unbiased for batches drawn without replacement. The own
    posterior is one of N and has the weight :math:`w_{ii} = 1 / N`. The others share the rest equally,
    :math:`w_{ij} = (N - 1) / (N (B - 1))`. This is the paper's minibatch stratified sampling, averaged over the order
    of the batch. The paper gives the whole correction to a single image; the average has the same expectation and less
    noise. Chen et al. (2018), arXiv 1802.04942, appendix C.

    Args:
        count: B, images in the batch. With ``stratified``, a single image has the weight 1.
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
    r"""The three parts of the KL divergence from a prior with independent dimensions, each in nats, shape (B,).

    .. math::
        \mathbb{E}_x \mathrm{KL}(q(z|x) \| p(z)) = \mathrm{KL}(q(z, x) \| q(z)\, p(x)) +
        \mathrm{KL}\bigl(q(z) \| {\textstyle\prod_j} q(z_j)\bigr) + \sum_j \mathrm{KL}(q(z_j) \| p(z_j))

    These are the mutual information of image and latents, the total correlation of the latents, and the sum of the
    divergences of single dimensions. The logarithm of an unbiased estimate of a density is too small on average
    (Jensen's inequality). The mutual information is therefore overestimated, more so in smaller batches. The sum of the
    three parts has no such bias: it is :math:`\log q(z|x) - \log p(z)` at the same samples.

    Args:
        q_z: the posteriors, batch shape (B,).
        p_z: the prior.
        z: samples from the posteriors, (K, B, latent_dim).
        log_weights: see :func:`log_sampling_weights`, (B, B').
        batch: the B' posteriors that estimate q(z), if ``q_z`` is a shard of them; by default ``q_z``, and B' = B.

    Returns:
        Mutual information, total correlation, and the sum over dimensions.
    """
    # log q(z_ij|x_l), (K, B, B', latent_dim)
    pairs = (q_z if batch is None else batch).marginals().log_prob(z[:, :, None, :, None])
    log_q_z = (log_weights + pairs.sum(-1)).logsumexp(-1)
    log_q_dimensions = (log_weights.unsqueeze(-1) + pairs).logsumexp(-2).sum(-1)
    mutual_information = q_z.log_prob(z) - log_q_z
    total_correlation = log_q_z - log_q_dimensions
    dimension_kl = log_q_dimensions - p_z.log_prob(z)
    return mutual_information.mean(0), total_correlation.mean(0), dimension_kl.mean(0)


class BetaTCVAE(AnnealedObjective):
    r"""The beta-TCVAE (Chen et al. 2018, arXiv 1802.04942): each part of the KL divergence has its own weight.

    .. math::
        \mathbb{E}_q[\log p(x|z)] - \alpha\, I(x; z) - \beta\, \mathrm{TC}(z) -
        \gamma \sum_j \mathrm{KL}(q(z_j) \| p(z_j))

    The loss adds the excess of each weight over 1 to the divergence, :math:`\mathrm{KL} + (\alpha - 1) I + (\beta - 1)
    \mathrm{TC} + (\gamma - 1) \sum_j \mathrm{KL}_j`. A part with weight 1 then adds no noise.

    Further terms are the parts from :func:`decompose`: ``mutual_information``, ``total_correlation`` and
    ``dimension_kl``. With ``divergence="sampled"`` their sum is ``kl``. In high dimensions a batch estimates q(z)
    badly, and the total correlation is a penalty rather than an estimate. All parts depend on the sizes of the batch
    and of the data set. Validation uses larger batches, so its loss cannot be compared with the training loss.

    Args:
        beta: weight of the total correlation.
        alpha: weight of the mutual information.
        gamma: weight of the divergences of single dimensions.
        sampling: how a batch estimates q(z), see :func:`log_sampling_weights`.
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: raises all three weights from 0 to their values.

    Raises:
        NotImplementedError: the posterior or the prior is not a Gaussian with diagonal covariance.
        ValueError: ``data_size`` is not set.
    """

    @checked
    def __init__(
        self,
        beta: NonNegativeNumber = 6.0,
        alpha: NonNegativeNumber = 1.0,
        gamma: NonNegativeNumber = 1.0,
        sampling: Sampling = "stratified",
        samples: PositiveInt = 1,
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
                "the total correlation depends on the number of training images: set the objective's data_size, as a "
                "trainer with an image data module does"
            )
        batch = DiagonalGaussian(trace.shard.gather(trace.q_z.mean), trace.shard.gather(trace.q_z.log_std))
        weights = log_sampling_weights(batch.batch_shape[0], self.data_size, self.sampling, trace.z.device)
        return decompose(trace.q_z, trace.p_z, trace.z, weights[trace.shard.rows], batch)


def maximum_mean_discrepancy(a: Tensor, b: Tensor, kernel: Kernel = "inverse_multiquadratic") -> Tensor:
    r"""Unbiased estimate of the squared maximum mean discrepancy of two distributions, from n samples of each.

    .. math::
        \frac{1}{n (n - 1)} \sum_{i \ne j} \bigl(k(a_i, a_j) + k(b_i, b_j)\bigr) - \frac{2}{n^2} \sum_{i, j} k(a_i, b_j)

    The estimate can be negative, because it is unbiased. The kernel k is a sum over widths :math:`C = 2 D c`, c from
    0.1 to 10. It is the inverse multiquadratic :math:`C / (C + \|a - b\|^2)`, or the Gaussian
    :math:`\exp(-\|a - b\|^2 / C)`. 2 D is the mean squared distance between two samples of N(0, I). Gretton et al.
    (2012), JMLR 13; Tolstikhin et al. (2018), arXiv 1711.01558.

    Args:
        a, b: n samples of each distribution, (..., n, D). For n = 1 the estimate does not exist, and the result is 0.
        kernel: ``inverse_multiquadratic``, whose heavy tails give distant samples a gradient too; or ``gaussian``.

    Returns:
        Shape (...).
    """
    count = a.shape[-2]
    if count == 1:
        return a.new_zeros(a.shape[:-2])

    def similarity(left: Tensor, right: Tensor) -> Tensor:
        # The faster way, by a matrix product, loses the digits of small distances.
        distance = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square()
        widths = [2 * left.shape[-1] * scale for scale in _SCALES]
        if kernel == "gaussian":
            return torch.stack([(-distance / width).exp() for width in widths]).sum(0)
        return torch.stack([width / (width + distance) for width in widths]).sum(0)

    def mean_over_pairs(values: Tensor) -> Tensor:
        pairs = similarity(values, values)
        return (pairs.sum((-2, -1)) - pairs.diagonal(dim1=-2, dim2=-1).sum(-1)) / (count * (count - 1))

    return mean_over_pairs(a) + mean_over_pairs(b) - 2 * similarity(a, b).mean((-2, -1))


class MMD(AnnealedObjective):
    r"""InfoVAE and WAE-MMD: the loss pulls the aggregate posterior to the prior, instead of each single posterior.

    .. math:: \mathbb{E}_q[\log p(x|z)] - a\, \mathrm{KL}(q(z|x) \| p(z)) - m\, \mathrm{MMD}^2(q(z), p(z))

    Zhao, Song and Ermon (2019), arXiv 1706.02262, write the weights as :math:`a = 1 - \alpha` and
    :math:`m = \alpha + \lambda - 1`. Tolstikhin et al. (2018), arXiv 1711.01558, have a = 0 and a deterministic
    encoder. A further term is ``mmd``, :func:`maximum_mean_discrepancy` of the batch, a scalar without a unit.

    No gradient flows through the samples of the prior. A prior with parameters learns from the KL divergence only. The
    discrepancy ignores labels. In a conditional model only ``kl_weight`` pulls the latents of each class to the prior.

    Args:
        mmd_weight: m.
        kl_weight: a; 0 is MMD-VAE, which differs from WAE-MMD only by its random encoder.
        kernel: see :func:`maximum_mean_discrepancy`.
        samples, divergence: see :class:`~vaelab.objectives.base.Objective`.
        warmup: raises both weights from 0 to their values.

    Raises:
        NotImplementedError: the prior has parameters, and ``kl_weight`` is 0.
    """

    @checked
    def __init__(
        self,
        mmd_weight: NonNegativeNumber = 100.0,
        kl_weight: NonNegativeNumber = 0.0,
        kernel: Kernel = "inverse_multiquadratic",
        samples: PositiveInt = 1,
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
        # The K samples of one image are not independent. So there are K estimates, each from one sample per image.
        z = trace.shard.gather(trace.z, 1)
        mmd = maximum_mean_discrepancy(z, trace.p_z.sample(z.shape[:-1]), self.kernel).mean()
        weighted = self.kl_weight * trace.kl.mean() + self.mmd_weight * mmd
        return trace.terms(loss=trace.reconstruction.mean() + self.warmup_factor() * weighted, mmd=mmd)
