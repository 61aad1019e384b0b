"""Encoders and decoders. Twin: torch_vae/models/networks.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vae_common.configs import Config

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "gelu": partial(jax.nn.gelu, approximate=False),  # jax.nn.gelu approximates by default
    "silu": jax.nn.silu,
}


def linear(inputs: int, outputs: int) -> nnx.Linear:
    """A fully connected layer; an experiment's weights replace its own (see `create_model`)."""
    uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +-1/sqrt(fan_in)
    return nnx.Linear(inputs, outputs, kernel_init=uniform, rngs=nnx.Rngs(0))


def affine(features, layers: Sequence[Any], products: str | None):
    """One matrix product for layers that read the same features; their outputs side by side.

    Not the layers' own call: several narrow products take longer than one, and where `products` is a dtype,
    operands and result are rounded to it.
    """
    kernel, bias = layers[0].kernel[...], layers[0].bias[...]
    if len(layers) > 1:
        kernel = jnp.concatenate([layer.kernel[...] for layer in layers], 1)
        bias = jnp.concatenate([layer.bias[...] for layer in layers])
    if products is None:
        return features @ kernel + bias
    return features.astype(products) @ kernel.astype(products) + bias.astype(products)


class Encoder(nnx.Module):
    """Hidden layers and one linear head per name, for example `mean` and `log_std`.

    Takes images of shape (batch, height, width, channels), flattened in that order (or already flat)
    to `pixels` values; returns a tuple of arrays (batch, latent_dim), one per head.
    """

    def __init__(self, config: Config, heads: Sequence[str]):
        widths = (config.pixels, *config.network.hidden)
        self.hidden = nnx.List([linear(a, b) for a, b in pairwise(widths)])
        self.activation = ACTIVATIONS[config.network.activation]
        self.products = config.training.product_dtype
        self.pixels = config.pixels
        self.heads = tuple(heads)
        for head in heads:
            setattr(self, head, linear(widths[-1], config.network.latent_dim))

    def __call__(self, images):
        features = images.reshape(-1, self.pixels)
        for layer in self.hidden:
            features = self.activation(affine(features, [layer], self.products))
        heads = [getattr(self, head) for head in self.heads]
        outputs = affine(features, heads, self.products).astype(images.dtype)
        return tuple(jnp.split(outputs, len(heads), 1))


class Decoder(nnx.Module):
    """The encoder's hidden layers in reverse; (batch, latent_dim) to logits (batch, h, w, c)."""

    def __init__(self, config: Config):
        widths = (config.network.latent_dim, *reversed(config.network.hidden))
        self.hidden = nnx.List([linear(a, b) for a, b in pairwise(widths)])
        self.activation = ACTIVATIONS[config.network.activation]
        self.products = config.training.product_dtype
        self.logits = linear(widths[-1], config.pixels)
        self.image_shape = config.image_shape
        self.latent_dim = config.network.latent_dim

    def __call__(self, latents):
        features = latents
        for layer in self.hidden:
            features = self.activation(affine(features, [layer], self.products))
        logits = affine(features, [self.logits], self.products).astype(latents.dtype)
        return logits.reshape(-1, *self.image_shape)


class Autoencoder(nnx.Module):
    """What every model has: an encoder, a decoder, and a forward pass from images and noise.

    A model adds `encode(images) -> Posterior` and its call `(images, noise) -> Outputs`.
    """

    encoder: Encoder
    decoder: Decoder

    def decode(self, latents):
        """Logits of the pixel means, shape (batch, height, width, channels)."""
        return self.decoder(latents)
