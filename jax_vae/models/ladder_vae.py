"""The ladder VAE, with any number of stochastic layers. Twin: torch_vae/models/ladder_vae.py."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from vae_common.config import Config
from vae_common.contracts import Outputs, Posterior, StochasticLayer, per_draw
from vae_common.randomness import Start

from ..device import Array
from ..distributions import Gaussian
from ..layers import Autoencoder, Decoder, Dense, Encoder, reparameterize
from ..operations import affine, linear, parameter


class Step(NamedTuple):
    """What one layer of the ladder gives."""

    layer: StochasticLayer
    state: Array
    """What the layers below read, (batch[, samples], width)."""


class LadderLayer(nnx.Module):
    """One stochastic layer: its prior from the state above, its posterior from that and the image's features."""

    def __init__(self, config: Config):
        network = config.network
        width, hidden, latents = network.ladder_width, network.ladder_hidden, network.latent_dim
        self.prior = Dense(config, (width, hidden), {"mean": latents, "log_std": latents, "residual": width})
        self.posterior = Dense(config, (2 * width, hidden), {"mean": latents, "log_std": latents})
        self.expand = linear(latents, width)
        self.mix = Dense(config, (width, hidden), {"out": width})
        self.scale = 2 if network.posterior_head == "log_variance" else 1
        self.share = 0.5 / math.sqrt(network.ladder_layers)  # deep sums begin small
        self.products = config.training.product_dtype

    def before(self, state: Array) -> tuple[Gaussian, Array]:
        """The prior, and what else the state above says."""
        mean, log_std, residual = self.prior(state)
        return Gaussian(mean, log_std / self.scale), state + self.share * residual

    def given(self, prior: Gaussian, state: Array, features: Array) -> Posterior:
        """The posterior, relative to the prior."""
        both = jnp.concatenate([state, per_draw(features, state) + jnp.zeros_like(state)], -1)
        mean, log_std = self.posterior(both)
        return Posterior(prior.mean + mean, prior.log_std + log_std / self.scale)

    def after(self, state: Array, latents: Array) -> Array:
        """The state with these latents in it."""
        state = per_draw(state, latents) + affine(latents, [self.expand], self.products).astype(latents.dtype)
        return state + self.share * self.mix(state)[0]


class LadderVAE(Autoencoder):
    """Stochastic layers above each other, each given all above it in both directions (Sonderby et al. 2016; the blocks
    are those of Child 2021, section 3, of dense layers).

    The first layer is the top one. What is decoded are the latents of all layers, from the top on.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        network, count = config.network, config.network.ladder_layers
        width = network.ladder_width
        self.encoder = Encoder(config, heads=("features",), outputs=width)
        between = [Dense(config, (width, network.ladder_hidden), {"out": width}) for _ in range(count - 1)]
        self.upward: Any = nnx.List(between)
        self.top = parameter((width,), Start())
        self.ladder: Any = nnx.List([LadderLayer(config) for _ in range(count)])
        self.decoder = Decoder(config, inputs=width)
        self.latent_dim = network.latent_dim
        self.share = 0.5 / math.sqrt(count)

    def features(self, images: Array, labels: Array | None) -> list[Array]:
        """What each layer reads of the images, the top one's first."""
        (found,) = self.encoder(images, labels)
        each = [found]
        for block in self.upward:
            each.append(each[-1] + self.share * block(each[-1])[0])
        return each[::-1]

    def begin(self, count: int) -> Array:
        """The state above the top layer, (count, width)."""
        return jnp.broadcast_to(self.top[...], (count, *self.top.shape))

    def steps(self, images: Array, noise: Array | None, labels: Array | None) -> list[Step]:
        """Every layer in turn; without noise at its posterior's mean."""
        state, found = self.begin(len(images)), []
        for place, (layer, features) in enumerate(zip(self.ladder, self.features(images, labels))):
            prior, state = layer.before(state)
            posterior = layer.given(prior, state, features)
            if noise is None:
                latents = drawn = posterior.mean
            else:
                drawn = self.part(noise, place)
                latents = reparameterize(posterior, drawn)
            state = layer.after(state, latents)
            found.append(Step(StochasticLayer(posterior, prior, latents, drawn), state))
        return found

    def part(self, flat: Array, place: int) -> Array:
        """One layer's numbers of those of all."""
        return flat[..., place * self.latent_dim : (place + 1) * self.latent_dim]

    def encode(self, images: Array, labels: Array | None = None) -> Posterior:
        """Mean and log standard deviation of every layer, given the means above it, (batch, layers * latent_dim)."""
        posteriors = [step.layer.posterior for step in self.steps(images, None, labels)]
        return Posterior(*(jnp.concatenate(parts, -1) for parts in zip(*posteriors)))

    def decode(self, latents: Array, labels: Array | None = None) -> Array:
        """Logits of the pixels, of the latents of all layers, (batch[, samples], layers * latent_dim)."""
        state = self.begin(len(latents))
        for place, layer in enumerate(self.ladder):
            _, state = layer.before(state)
            state = layer.after(state, self.part(latents, place))
        return self.decoder(state, labels)

    def generate(self, noise: Array) -> Array:
        """Draws from the top on, each layer given those above, of noise (N, layers * latent_dim)."""
        state, found = self.begin(len(noise)), []
        for place, layer in enumerate(self.ladder):
            prior, state = layer.before(state)
            found.append(prior.sample(self.part(noise, place)))
            state = layer.after(state, found[-1])
        return jnp.concatenate(found, -1)

    def __call__(self, images: Array, noise: Array, labels: Array | None = None) -> Outputs:
        """`images` in [0, 1]; `noise` standard normal, (batch[, samples], layers * latent_dim), the top layer first."""
        images = images.reshape(-1, *self.image_shape)
        steps = self.steps(images, noise, labels)
        latents = jnp.concatenate([per_draw(step.layer.latents, noise) for step in steps], -1)
        return self.outputs(latents, labels, layers=tuple(step.layer for step in steps))
