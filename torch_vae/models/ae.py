"""The autoencoder. Twin: jax_vae/models/ae.py."""

from __future__ import annotations

from vae_common.config import Config
from vae_common.contracts import Outputs, Posterior

from ..device import Array
from ..layers import Autoencoder, Decoder, Encoder


class AE(Autoencoder):
    """The tutorial's autoencoder: each image has one code, and nothing is drawn."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.encoder = Encoder(config, heads=("code",))
        self.decoder = Decoder(config)

    def encode(self, images: Array, labels: Array | None = None) -> Posterior:
        """The code as `mean`, shape (batch, latent_dim); `log_std` is None."""
        (code,) = self.encoder(images, labels)
        return Posterior(code, None)

    def forward(self, images: Array, noise: Array, labels: Array | None = None) -> Outputs:
        """`images` in [0, 1]; `noise` has shape (batch, 0) and is not read."""
        posterior = self.encode(images, labels)
        return self.outputs(posterior.mean, labels)
