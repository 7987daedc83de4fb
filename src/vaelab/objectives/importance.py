"""Importance-weighted bounds: several latent samples give one estimate of the likelihood of an image."""

from torch import Tensor

from vaelab.models.distributions.latents import Latent
from vaelab.models.importance import importance_bound
from vaelab.models.vae import VAE
from vaelab.objectives.base import Objective
from vaelab.runtime.data_parallel import Shard


class IWAE(Objective):
    r"""The importance-weighted bound (Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519).

    .. math:: \log \frac1K \sum_{k=1}^K w_k, \qquad w_k = \frac{p(x|z_k)\, p(z_k)}{q(z_k|x)}, \quad z_k \sim q(z|x)

    For K = 1 it is the ELBO, and it rises with K towards log p(x). The reported terms are those of the ELBO, and
    ``iwae``, this bound.
    """

    needs_densities = True

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        assert trace.log_q is not None
        assert trace.log_p is not None
        bound = importance_bound(trace.log_likelihood + trace.log_p - trace.log_q)
        return trace.terms(loss=-bound.mean(), iwae=bound)


class DReG(Objective):
    r"""The importance-weighted bound with doubly reparametrised gradients (Tucker et al. 2019, arXiv 1810.04152).

    The bound and the gradients of decoder and prior are those of :class:`IWAE`. The parameters :math:`\phi` of the
    encoder get a gradient of the same expectation, but with less noise. Its signal-to-noise ratio grows with K, where
    that of the ordinary gradient falls:

    .. math::
        \nabla_\phi = \mathbb{E} \sum_{k=1}^K \tilde w_k^2\,
        \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}, \qquad
        \tilde w_k = \frac{w_k}{\sum_l w_l}

    For K = 1 it is the path derivative of "sticking the landing" (Roeder, Wu and Duvenaud 2017, arXiv 1703.09194).

    The equation covers q(z|x) only. A prior can depend on :math:`\phi` too, as a VampPrior does. It then adds its
    ordinary gradient, :math:`\sum_k \tilde w_k\, \partial \log p(z_k) / \partial \phi` at fixed :math:`z_k`. The sum of
    both is an unbiased gradient of the bound.

    Raises:
        NotImplementedError: the posterior has no :meth:`~vaelab.models.distributions.latents.Latent.detach`.
    """

    needs_densities = True

    def forward(self, vae: VAE, x: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> dict[str, Tensor]:
        trace = self.trace(vae, x, y, shard)
        assert trace.log_p is not None
        log_weights = trace.log_likelihood + trace.log_p - self._detached(trace.q_z).log_prob(trace.z)
        bound = importance_bound(log_weights)  # its gradient has the factor w~ once; the hook adds the second
        if trace.z.requires_grad:
            weights = log_weights.detach().softmax(0).unsqueeze(-1)  # (K, B, 1)
            trace.z.register_hook(lambda gradient: gradient * weights)
        return trace.terms(loss=-bound.mean(), iwae=bound)

    @staticmethod
    def _detached(q_z: Latent) -> Latent:
        try:
            return q_z.detach()
        except NotImplementedError as error:
            raise NotImplementedError(
                f"its gradient needs a posterior whose parameters can be held fixed, which a {type(q_z).__name__} "
                "cannot: type objective=iwae"
            ) from error
