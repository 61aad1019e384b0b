"""The variational autoencoder with two stochastic layers. Twin: jax_vae/models/two_layer_vae.py."""

from __future__ import annotations

from vae_common.config import Config
from vae_common.contracts import Outputs, Posterior, UpperLayer

from ..device import Array
from ..layers import Autoencoder, Decoder, Dense, Encoder, reparameterize


class TwoLayerVAE(Autoencoder):
    """q(z1|x) q(z2|z1) against p(x|z1) p(z1|z2) p(z2), all Gaussian (Burda et al. 2016, section 5, second model)."""

    def __init__(self, config: Config):
        super().__init__(config)
        network = config.network
        lower, top = network.latent_dim, network.top_dim
        self.encoder = Encoder(config, heads=("mean", "log_std"))
        self.top_encoder = Dense(config, (lower, *network.top_hidden), {"mean": top, "log_std": top})
        self.top_decoder = Dense(config, (top, *reversed(network.top_hidden)), {"mean": lower, "log_std": lower})
        self.decoder = Decoder(config)

    def encode(self, images: Array, labels: Array | None = None) -> Posterior:
        """Mean and log standard deviation of the lower layer, which is decoded, (batch, latent_dim) each."""
        return self.gaussian(*self.encoder(images, labels))

    def generate(self, noise: Array) -> Array:
        """Draws of the lower layer given draws of the upper, from noise (N, latent_dim + top_dim)."""
        lower, top = noise[..., : self.latent_dim], noise[..., self.latent_dim :]
        return reparameterize(self.gaussian(*self.top_decoder(top)), lower)

    def forward(self, images: Array, noise: Array, labels: Array | None = None) -> Outputs:
        """`images` in [0, 1]; `noise` standard normal, (batch[, samples], latent_dim + top_dim), lower layer first."""
        lower, upper = noise[..., : self.latent_dim], noise[..., self.latent_dim :]
        posterior = self.encode(images, labels)
        latents = reparameterize(posterior, lower)
        top_posterior = self.gaussian(*self.top_encoder(latents))
        top = reparameterize(top_posterior, upper)
        prior = self.gaussian(*self.top_decoder(top))
        return self.outputs(
            posterior, latents, labels, noise=lower, prior=prior, upper=UpperLayer(top_posterior, top, upper)
        )
