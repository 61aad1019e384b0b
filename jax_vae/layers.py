"""Encoders and decoders. Twin: torch_vae/layers.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import jax.numpy as jnp
from flax import nnx

from vae_common.config import Config
from vae_common.contracts import Outputs, Posterior, per_draw
from vae_common.randomness import LOG_SCALE, Start

from .device import Array
from .operations import (
    ACTIVATIONS,
    affine,
    convolution,
    convolve,
    deconvolution,
    deconvolve,
    enlarged,
    linear,
    parameter,
)


def with_labels(features: Array, labels: Any, classes: int) -> Array:
    """Features (batch[, samples], n) with the one-hot labels behind them, if the model is given any."""
    if not classes:
        return features
    one_hot = (labels[:, None] == jnp.arange(classes)).astype(features.dtype)
    if features.ndim > one_hot.ndim:
        one_hot = jnp.broadcast_to(one_hot[:, None], (*features.shape[:-1], classes))
    return jnp.concatenate([features, one_hot], -1)


def reparameterize(posterior: Posterior, noise: Array) -> Array:
    """Draws mean + sigma * noise: (batch, n), or (batch, samples, n) where the noise has samples."""
    return per_draw(posterior.mean, noise) + per_draw(jnp.exp(posterior.log_std), noise) * noise


class Dense(nnx.Module):
    """Hidden layers and one linear head per name; takes (..., widths[0]), returns one array per head."""

    def __init__(self, config: Config, widths: Sequence[int], heads: Mapping[str, int]):
        self.hidden = nnx.List([linear(a, b) for a, b in pairwise(widths)])
        self.activation = ACTIVATIONS[config.network.activation]
        self.products = config.training.product_dtype
        self.heads = tuple(heads)
        self.ends = tuple(accumulate(heads.values()))
        for head, width in heads.items():
            setattr(self, head, linear(widths[-1], width))

    def __call__(self, features: Array) -> Any:
        dtype = features.dtype
        for layer in self.hidden:
            features = self.activation(affine(features, [layer], self.products))
        heads = [getattr(self, head) for head in self.heads]
        outputs = affine(features, heads, self.products).astype(dtype)
        return tuple(outputs[..., a:b] for a, b in pairwise((0, *self.ends)))


class Convolutions:
    """What encoders have before their heads: convolutions that halve images, each with its activation.

    Images that they would not halve evenly are enlarged first, with zeros below and to the right.
    """

    activation: Any
    products: str | None

    def add_convolutions(self, config: Config) -> None:
        """Makes the layers."""
        height, width, _ = config.grid_shape
        self.convolutions = nnx.List(
            [convolution(a, b) for a, b in pairwise((config.image_shape[2], *config.network.channels))]
        )
        self.image_shape = config.image_shape
        self.enlarged = height * config.stride, width * config.stride

    def convolved(self, images: Array) -> Array:
        """Features (batch, *grid_shape) of images (batch, height, width, channels), or flat ones."""
        features = enlarged(images.reshape(-1, *self.image_shape), *self.enlarged)
        for layer in self.convolutions:
            features = self.activation(convolve(features, layer, self.products))
        return features


class Deconvolutions:
    """The same in reverse: features to logits; what is below images and to their right is cut off again."""

    activation: Any
    products: str | None

    def add_deconvolutions(self, config: Config) -> None:
        """Makes the layers, and what is learned of the likelihood."""
        channels = (*reversed(config.network.channels), config.image_shape[2])
        self.deconvolutions = nnx.List([deconvolution(a, b) for a, b in pairwise(channels[:-1])])
        if config.network.channels:
            self.logits = deconvolution(*channels[-2:])
        if config.loss.likelihood.learns_scale:
            self.log_scale = parameter((1,), Start(LOG_SCALE))
        self.image_shape, self.grid_shape = config.image_shape, config.grid_shape

    def deconvolved(self, features: Array) -> Array:
        """Logits (batch, *image_shape) of features, of the grid's shape or flat."""
        features = features.reshape(-1, *self.grid_shape)
        for layer in (*self.deconvolutions, self.logits):
            features = deconvolve(self.activation(features), layer, self.products)
        return features[:, : self.image_shape[0], : self.image_shape[1]]


class Encoder(Dense, Convolutions):
    """Convolutions, if any, hidden layers and one linear head per name, for example `mean` and `log_std`.

    Takes images of shape (batch, height, width, channels), flattened in that order (or already flat), and labels
    (batch,) if the model is given any; returns a tuple of arrays (batch, outputs), one per head, by default of
    `latent_dim`.
    """

    def __init__(self, config: Config, heads: Sequence[str], outputs: int | None = None):
        network, flat = config.network, math.prod(config.grid_shape)
        widths = (flat + network.classes, *network.hidden)
        super().__init__(config, widths, dict.fromkeys(heads, outputs or network.latent_dim))
        self.add_convolutions(config)
        self.flat, self.classes = flat, network.classes

    def __call__(self, images: Array, labels: Array | None = None) -> tuple[Array, ...]:
        flat = self.convolved(images).reshape(-1, self.flat).astype(images.dtype)
        return super().__call__(with_labels(flat, labels, self.classes))


class Decoder(Dense, Deconvolutions):
    """The encoder's layers in reverse; `inputs` numbers, by default latent_dim, (batch[, samples], inputs), to logits
    (..., h, w, c).
    """

    def __init__(self, config: Config, inputs: int | None = None):
        network = config.network
        head = "grid" if network.channels else "logits"
        widths = ((inputs or network.latent_dim) + network.classes, *reversed(network.hidden))
        super().__init__(config, widths, {head: math.prod(config.grid_shape)})
        self.add_deconvolutions(config)
        self.classes = network.classes

    def __call__(self, latents: Array, labels: Array | None = None) -> Array:
        (features,) = super().__call__(with_labels(latents, labels, self.classes))
        if self.heads == ("grid",):
            features = self.deconvolved(features)
        return features.astype(latents.dtype).reshape(*latents.shape[:-1], *self.image_shape)


class GridEncoder(nnx.Module, Convolutions):
    """Convolutions and a head at each place of their grid: images (batch, height, width, channels) to a tuple of one
    array (batch, height * width of the grid * outputs)."""

    def __init__(self, config: Config, head: str, outputs: int):
        self.activation = ACTIVATIONS[config.network.activation]
        self.products = config.training.product_dtype
        self.add_convolutions(config)
        self.head = head
        setattr(self, head, convolution(config.grid_shape[2], outputs, 1, 1, 0))

    def __call__(self, images: Array, labels: Array | None = None) -> tuple[Array]:
        features = convolve(self.convolved(images), getattr(self, self.head), self.products)
        return (features.reshape(len(images), -1).astype(images.dtype),)


class GridDecoder(nnx.Module, Deconvolutions):
    """Its layers in reverse: latents (batch, height, width, inputs) of the grid to logits (batch, h, w, c)."""

    def __init__(self, config: Config, inputs: int):
        self.activation = ACTIVATIONS[config.network.activation]
        self.products = config.training.product_dtype
        self.grid = convolution(inputs, config.grid_shape[2], 1, 1, 0)
        self.add_deconvolutions(config)

    def __call__(self, latents: Array, labels: Array | None = None) -> Array:
        return self.deconvolved(convolve(latents, self.grid, self.products)).astype(latents.dtype)


class Autoencoder(nnx.Module):
    """What every model has: an encoder, a decoder, and a forward pass from images, noise and labels.

    A model adds `encode(images, labels) -> Posterior` and its call `(images, noise, labels) -> Outputs`.
    """

    encoder: Encoder | GridEncoder
    decoder: Decoder | GridDecoder

    def __init__(self, config: Config):
        self.image_shape = config.image_shape
        self.latent_shape = config.latent_shape
        self.noise_dim = config.noise_dim
        self.prior_dim = config.prior_dim
        self.classes = config.network.classes
        self.reconstruction = config.loss.reconstruction
        self.log_variance_head = config.network.posterior_head == "log_variance"

    def decode(self, latents: Array, labels: Array | None = None) -> Array:
        """Logits of the pixels, shape (batch[, samples], height, width, channels), of latents (..., *latent_shape)."""
        return self.decoder(latents, labels)

    def decode_flat(self, latents: Array, labels: Array | None = None) -> Array:
        """The same of latents as a forward pass has them, (batch[, samples], n)."""
        return self.decode(latents.reshape(*latents.shape[:-1], *self.latent_shape), labels)

    def gaussian(self, mean: Array, scale: Array) -> Posterior:
        """The distribution that a layer's two heads give; `scale` is log sigma, or log sigma^2, as configured."""
        return Posterior(mean, scale / 2 if self.log_variance_head else scale)

    def prior(self) -> Any:
        """The prior of what is decoded, where it does not depend on a layer above; None is the standard normal."""
        return None

    def follow(self, outputs: Outputs) -> list[tuple[Any, Any]]:
        """Parameters that follow the batch and not a gradient, each with what it becomes after these outputs."""
        return []

    def generate(self, noise: Array) -> Array:
        """Latents from the prior, (N, *latent_shape), made of standard-normal noise (N, prior_dim)."""
        prior = self.prior()
        latents = noise if prior is None else prior.sample(noise)
        return latents.reshape(-1, *self.latent_shape)

    def outputs(self, latents: Array, labels: Array | None = None, **more: Any) -> Outputs:
        """What a forward pass gives, from its latents (batch[, samples], n) on."""
        log_scale = None
        if hasattr(self.decoder, "log_scale"):
            log_scale = jnp.broadcast_to(self.decoder.log_scale[...], (*latents.shape[:-1], 1, 1, 1))
        return Outputs(self.decode_flat(latents, labels), latents, log_scale=log_scale, **more)
