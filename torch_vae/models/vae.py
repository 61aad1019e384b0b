"""The variational autoencoder. Twin: jax_vae/models/vae.py."""

from __future__ import annotations

import torch

from vae_common.configs import Config
from vae_common.contracts import Outputs, Posterior

from .networks import Autoencoder, Decoder, Encoder


class VAE(Autoencoder):
    """Gaussian posterior, standard-normal prior (Kingma and Welling 2014, appendix C)."""

    def __init__(self, config: Config):
        super().__init__()
        self.encoder = Encoder(config, heads=("mean", "log_std"))
        self.decoder = Decoder(config)

    def encode(self, images) -> Posterior:
        """Mean and log standard deviation, shape (batch, latent_dim) each."""
        return Posterior(*self.encoder(images))

    def forward(self, images, noise) -> Outputs:
        """`images` in [0, 1]; `noise` standard normal, shape (batch, latent_dim)."""
        posterior = self.encode(images)
        latents = posterior.mean + torch.exp(posterior.log_std) * noise
        return Outputs(self.decode(latents), posterior, latents)
