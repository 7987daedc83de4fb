"""The encoder and the decoder as modules from tensors to tensors, which exporters can trace."""

from torch import Tensor, nn

from vaelab.models.vae import VAE
from vaelab.runtime.workarounds.tracing import without

Outputs = dict[str, Tensor]


class Encoder(nn.Module):
    """Images (B, C, H, W), and labels (B,) of a conditional model, to what is known of q(z|x).

    That is ``mean`` and ``log_variance``, (B, latent_dim), where both have a closed form, and else its ``centre``. Of
    a full covariance the variances are those of the single dimensions.
    """

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = without(vae, "decoder", "likelihood", "prior")

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Outputs:
        """What is known of q(z|x), by name."""
        q_z = self.vae.encode(images, labels)
        try:
            return {"mean": q_z.centre, "log_variance": q_z.variance.log()}
        except NotImplementedError:
            return {"centre": q_z.centre}


class Decoder(nn.Module):
    """Latents (B, latent_dim), and labels (B,) of a conditional model, to pictures (B, C, H, W): means of p(x|z)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = without(vae, "encoder", "posterior", "class_channel", "prior")

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Outputs:
        """The pictures, by their name."""
        return {"pictures": self.vae.decode(latents, labels).mean}
