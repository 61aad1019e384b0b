"""Encoders and decoders. Twin: jax_vae/models/networks.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vae_common.configs import Config

ACTIVATIONS = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "softplus": partial(F.softplus, threshold=50),  # the default, 20, is off by 2e-9
    "gelu": F.gelu,
    "silu": F.silu,
}


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A fully connected layer; an experiment's weights replace its own (see `create_model`)."""
    return nn.Linear(inputs, outputs)


def affine(features, layers: Sequence[Any], products: str | None):
    """One matrix product for layers that read the same features; their outputs side by side.

    Not the layers' own call: several narrow products take longer than one, and where `products` is a dtype,
    operands and result are rounded to it.
    """
    weight, bias = layers[0].weight, layers[0].bias
    if len(layers) > 1:
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    if products is None:
        return features @ weight.T + bias  # on a CPU faster than addmm, which reads a broadcast bias
    dtype = getattr(torch, products)
    return features.to(dtype) @ weight.to(dtype).T + bias.to(dtype)


class Encoder(nn.Module):
    """Hidden layers and one linear head per name, for example `mean` and `log_std`.

    Takes images of shape (batch, height, width, channels), flattened in that order (or already flat)
    to `pixels` values; returns a tuple of tensors (batch, latent_dim), one per head.
    """

    def __init__(self, config: Config, heads: Sequence[str]):
        super().__init__()
        widths = (config.pixels, *config.network.hidden)
        self.hidden = nn.ModuleList([linear(a, b) for a, b in pairwise(widths)])
        self.activation = ACTIVATIONS[config.network.activation]
        self.products = config.training.product_dtype
        self.pixels = config.pixels
        self.heads = tuple(heads)
        for head in heads:
            setattr(self, head, linear(widths[-1], config.network.latent_dim))

    def forward(self, images):
        features = images.reshape(-1, self.pixels)
        for layer in self.hidden:
            features = self.activation(affine(features, [layer], self.products))
        heads = [getattr(self, head) for head in self.heads]
        outputs = affine(features, heads, self.products).to(images.dtype)
        return outputs.chunk(len(heads), 1)


class Decoder(nn.Module):
    """The encoder's hidden layers in reverse; (batch, latent_dim) to logits (batch, h, w, c)."""

    def __init__(self, config: Config):
        super().__init__()
        widths = (config.network.latent_dim, *reversed(config.network.hidden))
        self.hidden = nn.ModuleList([linear(a, b) for a, b in pairwise(widths)])
        self.activation = ACTIVATIONS[config.network.activation]
        self.products = config.training.product_dtype
        self.logits = linear(widths[-1], config.pixels)
        self.image_shape = config.image_shape
        self.latent_dim = config.network.latent_dim

    def forward(self, latents):
        features = latents
        for layer in self.hidden:
            features = self.activation(affine(features, [layer], self.products))
        logits = affine(features, [self.logits], self.products).to(latents.dtype)
        return logits.reshape(-1, *self.image_shape)


class Autoencoder(nn.Module):
    """What every model has: an encoder, a decoder, and a forward pass from images and noise.

    A model adds `encode(images) -> Posterior` and its call `(images, noise) -> Outputs`.
    """

    encoder: Encoder
    decoder: Decoder

    def decode(self, latents):
        """Logits of the pixel means, shape (batch, height, width, channels)."""
        return self.decoder(latents)
