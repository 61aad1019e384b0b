"""The variational autoencoder with two stochastic layers. Twin: jax_vae/models/two_layer_vae.py."""

from __future__ import annotations

from vae_common.config import Config
from vae_common.contracts import Outputs, Posterior, StochasticLayer

from ..device import Array
from ..distributions import Gaussian, OfDraws
from ..layers import Autoencoder, Decoder, Dense, Encoder, reparameterize


class TwoLayerVAE(Autoencoder):
    """q(z1|x) q(z2|z1) against p(x|z1) p(z1|z2) p(z2), all Gaussian (Burda et al. 2016, section 5, second model)."""

    def __init__(self, config: Config):
        super().__init__(config)
        network = config.network
        lower, top = network.latent_dim, network.top_dim
        self.lower_dim = lower
        self.encoder = Encoder(config, heads=("mean", "log_std"))
        self.top_encoder = Dense(config, (lower, *network.top_hidden), {"mean": top, "log_std": top})
        self.top_decoder = Dense(config, (top, *reversed(network.top_hidden)), {"mean": lower, "log_std": lower})
        self.decoder = Decoder(config)

    def encode(self, images: Array, labels: Array | None = None) -> Posterior:
        """Mean and log standard deviation of the lower layer, which is decoded, (batch, latent_dim) each."""
        return self.gaussian(*self.encoder(images, labels))

    def lower_prior(self, top: Array) -> Gaussian:
        """The lower layer's prior, given the upper layer's latents (batch[, samples], top_dim)."""
        return Gaussian(*self.gaussian(*self.top_decoder(top)))

    def generate(self, noise: Array) -> Array:
        """Draws of the lower layer given draws of the upper, from noise (N, latent_dim + top_dim)."""
        lower, top = noise[..., : self.lower_dim], noise[..., self.lower_dim :]
        return self.lower_prior(top).sample(lower)

    def forward(self, images: Array, noise: Array, labels: Array | None = None) -> Outputs:
        """`images` in [0, 1]; `noise` standard normal, (batch[, samples], latent_dim + top_dim), lower layer first."""
        lower, upper = noise[..., : self.lower_dim], noise[..., self.lower_dim :]
        posterior = self.encode(images, labels)
        latents = reparameterize(posterior, lower)
        top_posterior = self.gaussian(*self.top_encoder(latents))
        top = reparameterize(top_posterior, upper)
        layers = (
            StochasticLayer(posterior, OfDraws(self.lower_prior(top)), latents, lower),
            StochasticLayer(top_posterior, None, top, upper),
        )
        return self.outputs(latents, labels, layers=layers)
