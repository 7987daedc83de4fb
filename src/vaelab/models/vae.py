"""The variational autoencoder as mathematics: encoder, posterior, prior, decoder and likelihood in one model.

.. math:: p(x) = \\int p(x|z)\\, p(z)\\, dz, \\qquad q(z|x) \\approx p(z|x)

Kingma and Welling (2014), arXiv 1312.6114; Rezende, Mohamed and Wierstra (2014), arXiv 1401.4082.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.distributions.latents import Latent
from vaelab.models.likelihoods import Likelihood
from vaelab.runtime.data_parallel import Shard
from vaelab.runtime.errors import UserError
from vaelab.runtime.validation import AtLeastTwo, ImageShape, PositiveInt, checked, within
from vaelab.runtime.workarounds import mkl

mkl.initialize_vector_functions()  # here, because it must precede every computation


class VAE(nn.Module):
    """A decoder p(x|z), a prior p(z) and an encoder q(z|x), in any combination.

    The parts are given as factories (a class, a ``functools.partial``, in YAML ``_partial_: true``), because their
    sizes depend on each other. The posterior's inputs are the encoder's features, and the decoder's outputs are the
    likelihood's parameters.

    With ``classes``, the model is conditional on the image's class y: p(x|z, y) and q(z|x, y) (Sohn, Lee and Yan 2015).
    Unlike theirs, its prior p(z) is the same for all classes. The encoder gets an additional channel, learned for each
    class. The decoder gets an additional input for each class. So any network can be used. Labels y are then integers
    (B,), or weights of the classes (B, classes). Without ``classes`` they are ignored.

    Args:
        image_shape: (C, H, W).
        latent_dim: the number of latent dimensions.
        encoder: ``encoder(image_shape=...)``, a module from (B, C, H, W) to (B, ``encoder.out_features``).
        decoder: ``decoder(in_features=..., image_shape=...)``, a module from (B, in_features) to (B, *image_shape).
        likelihood: a :class:`~vaelab.models.likelihoods.Likelihood`.
        prior: ``prior(latent_dim=...)``, see :mod:`vaelab.models.priors`.
        posterior: ``posterior(in_features=..., latent_dim=...)``, see :mod:`vaelab.models.posteriors`.
        classes: the number of classes of a conditional model; ``None`` for an unconditional model.
        initialize: sets the initial weights: it is called once with every module, except those of the prior. ``None``
            keeps torch's initial weights.

    Raises:
        ValueError: a size is not a positive integer.
    """

    @checked
    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: PositiveInt,
        encoder: Callable[..., nn.Module],
        decoder: Callable[..., nn.Module],
        likelihood: Likelihood,
        prior: Callable[..., nn.Module],
        posterior: Callable[..., nn.Module],
        classes: AtLeastTwo | None = None,
        initialize: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.latent_dim = latent_dim
        self.classes = classes
        self.likelihood = likelihood
        with within("encoder"):
            self.encoder = encoder(image_shape=(channels + (classes is not None), height, width))
        with within("posterior"):
            self.posterior = posterior(in_features=self.encoder.out_features, latent_dim=latent_dim)
        with within("prior"):
            self.prior = prior(latent_dim=latent_dim)
        with within("decoder"):
            self.decoder = decoder(
                in_features=latent_dim + (classes or 0),
                image_shape=(channels * likelihood.parameters_per_channel, height, width),
            )
        self.class_channel = None if classes is None else nn.Linear(classes, height * width, bias=False)
        if initialize is not None:
            for part in (self.encoder, self.posterior, self.decoder, self.class_channel):
                if part is not None:
                    part.apply(initialize)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Latent:
        """q(z|x), or q(z|x, y), for images (B, C, H, W): batch shape (B,), event shape (latent_dim,)."""
        if self.class_channel is not None:
            channel = self.class_channel(self._weights(y, x)).view(-1, 1, *self.image_shape[1:])
            x = torch.cat([x, channel.to(x.dtype)], 1)
        return self.posterior(self.encoder(x))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """p(x|z), or p(x|z, y), for latents (..., B, latent_dim): batch shape (..., B), event shape (C, H, W)."""
        return self.likelihood(self._decoder_outputs(z, y))

    def log_likelihood(self, x: Tensor, z: Tensor, y: Tensor | None = None, shard: Shard | None = None) -> Tensor:
        """log p(x|z) in nats, shape (..., B), of images (B, C, H, W) given latents (..., B, latent_dim).

        Args:
            x: the images.
            z: the latents.
            y: labels, for a conditional model.
            shard: the part of their batch that the images are; ``None`` if they are the whole batch.
        """
        return self.likelihood.log_prob(self._decoder_outputs(z, y), x, shard)

    def _decoder_outputs(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Outputs (..., B, C', H, W) of the decoder for latents (..., B, latent_dim), C' channels of parameters."""
        inputs = z
        if self.classes is not None:
            inputs = torch.cat([z, self._weights(y, z).expand(*z.shape[:-1], -1)], -1)
        return self.decoder(inputs.flatten(end_dim=-2)).unflatten(0, z.shape[:-1])

    def _weights(self, y: Tensor | None, like: Tensor) -> Tensor:
        """Labels as weights of the classes, (B, classes)."""
        if y is None:
            raise ValueError("this model is conditional: it needs labels")
        assert self.classes is not None
        return (y if y.is_floating_point() else F.one_hot(y, self.classes)).to(like)

    def p_z(self) -> Latent:
        """The prior p(z): batch shape (), event shape (latent_dim,)."""
        return self.prior(self._encode_pseudo_inputs)

    def _encode_pseudo_inputs(self, x: Tensor) -> Latent:
        """q(z|x) of pseudo-inputs (K, C, H, W); in a conditional model they are assigned to the classes in turn."""
        if self.classes is not None and len(x) < self.classes:
            raise NotImplementedError(
                f"a prior of {len(x)} images leaves classes out: type module.vae.prior.components={self.classes}"
            )
        return self.encode(x, self.classes_in_turn(len(x)))

    def classes_in_turn(self, count: int) -> Tensor | None:
        """Labels (count,) that cycle through the classes; ``None`` for an unconditional model."""
        if self.classes is None:
            return None
        return torch.arange(count, device=next(self.parameters()).device) % self.classes

    def sample_latents(self, count: int, temperature: float = 1.0) -> Tensor:
        """Latents (count, latent_dim) drawn from the prior.

        Args:
            count: the number of latents.
            temperature: the factor of their distances from the centre of the prior; below one, samples are more
                typical.

        Raises:
            UserError: the temperature is not one, and the prior has no centre.
        """
        p_z = self.p_z()
        z = p_z.sample((count,))
        if temperature == 1:
            return z
        try:
            return p_z.centre + temperature * (z - p_z.centre)
        except NotImplementedError as error:
            name = type(self.prior).__name__
            raise UserError(f"temperature={temperature}: a {name} has no centre to scale towards; type 1") from error

    def sample(self, count: int, y: Tensor | None = None) -> Tensor:
        """Sampled images (count, C, H, W): the means of p(x|z), z ~ p(z).

        Args:
            count: the number of images.
            y: labels (count,), for a conditional model; by default the classes in turn.
        """
        return self.decode(self.sample_latents(count), self.classes_in_turn(count) if y is None else y).mean

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Reconstructions (B, C, H, W) of images (B, C, H, W): the mean of p(x|z) at the centre z of q(z|x)."""
        return self.decode(self.encode(x, y).centre, y).mean

    def log_weights(self, x: Tensor, samples: int, y: Tensor | None = None, at_once: int | None = None) -> Tensor:
        r"""Log importance weights of images (B, C, H, W), in nats, shape (samples, B).

        .. math:: \log w_k = \log p(x|z_k) + \log p(z_k) - \log q(z_k|x), \qquad z_k \sim q(z|x)

        The mean of the log weights estimates the ELBO. The logarithm of the mean weight estimates the
        importance-weighted bound on log p(x) (Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519).

        Args:
            x: the images.
            samples: the number of samples per image.
            y: labels (B,), for a conditional model.
            at_once: the number of samples that are decoded together; ``None`` for all.
        """
        q_z, p_z = self.encode(x, y), self.p_z()
        at_once = at_once or samples
        pieces = []
        for start in range(0, samples, at_once):
            z, log_q = q_z.rsample_and_log_prob((min(at_once, samples - start),))  # (K, B, latent_dim), (K, B)
            pieces.append(self.decode(z, y).log_prob(x) + p_z.log_prob(z) - log_q)
        return torch.cat(pieces)
