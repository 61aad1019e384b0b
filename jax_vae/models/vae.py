"""The variational autoencoder. Twin: torch_vae/models/vae.py."""

from __future__ import annotations

from vae_common.config import Config
from vae_common.contracts import Outputs, Posterior, StochasticLayer

from ..device import Array
from ..layers import Autoencoder, Decoder, Encoder, reparameterize


class VAE(Autoencoder):
    """Gaussian posterior, standard-normal prior (Kingma and Welling 2014, appendix C); a subclass may have another
    prior."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.encoder = Encoder(config, heads=("mean", "log_std"))
        self.decoder = Decoder(config)

    def encode(self, images: Array, labels: Array | None = None) -> Posterior:
        """Mean and log standard deviation, shape (batch, latent_dim) each."""
        return self.gaussian(*self.encoder(images, labels))

    def __call__(self, images: Array, noise: Array, labels: Array | None = None) -> Outputs:
        """`images` in [0, 1]; `noise` standard normal, shape (batch[, samples], latent_dim)."""
        posterior = self.encode(images, labels)
        latents = reparameterize(posterior, noise)
        return self.outputs(latents, labels, layers=(StochasticLayer(posterior, self.prior(), latents, noise),))
