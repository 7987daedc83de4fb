"""The encoder and the decoder as modules with only tensors as inputs and outputs, for export by tracing."""

from torch import Tensor, nn

from vaelab.models.vae import VAE
from vaelab.runtime.workarounds.tracing import without

Outputs = dict[str, Tensor]


class Encoder(nn.Module):
    """Maps images (B, C, H, W), and labels (B,) for a conditional model, to parameters of q(z|x).

    The outputs are ``mean`` and ``log_variance``, (B, latent_dim), if both have a closed form, and else ``centre``. The
    variances of a full covariance are its diagonal.
    """

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = without(vae, "decoder", "likelihood", "prior")

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Outputs:
        """The parameters of q(z|x), by name."""
        q_z = self.vae.encode(images, labels)
        try:
            return {"mean": q_z.centre, "log_variance": q_z.variance.log()}
        except NotImplementedError:
            return {"centre": q_z.centre}


class Decoder(nn.Module):
    """Maps latents (B, latent_dim), and labels (B,) for a conditional model, to images (B, C, H, W).

    The images are the means of p(x|z).
    """

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = without(vae, "encoder", "posterior", "class_channel", "prior")

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Outputs:
        """The images, under the name ``pictures``."""
        return {"pictures": self.vae.decode(latents, labels).mean}
