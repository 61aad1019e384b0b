"""The vector-quantised autoencoder. Twin: jax_vae/models/vq_vae.py."""

from __future__ import annotations

import math

import torch
from torch import nn

from vae_common.config import Config
from vae_common.contracts import Codes, Outputs, Posterior

from ..device import Array
from ..layers import Autoencoder, Decoder, Encoder


class VQVAE(Autoencoder):
    """Each group of `code_dim` latents is replaced by the nearest vector of a codebook (van den Oord et al. 2017).

    The groups are cut from the encoder's dense output, not from a grid of convolutions. Gradients pass straight
    through to the encoder.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        self.encoder = Encoder(config, heads=("code",))
        self.codebook = nn.Embedding(config.network.codes, config.network.code_dim)
        self.decoder = Decoder(config)

    def quantize(self, code: Array) -> Codes:
        """The nearest vectors to an encoder's output, (batch, latent_dim)."""
        book = self.codebook.weight
        groups = code.reshape(-1, self.prior_dim, 1, book.shape[1])
        indices = ((groups - book) ** 2).sum(-1).argmin(-1)
        nats = torch.full_like(code[:, 0], indices.shape[1] * math.log(len(book)))
        return Codes(code, book[indices].reshape(code.shape), indices, nats)

    def encode(self, images: Array, labels: Array | None = None) -> Posterior:
        """The chosen vectors as `mean`, shape (batch, latent_dim); `log_std` is None."""
        (code,) = self.encoder(images, labels)
        return Posterior(self.quantize(code).vectors, None)

    def generate(self, noise: Array) -> Array:
        """Codes drawn uniformly, from standard-normal noise (N, latent_dim / code_dim)."""
        book = self.codebook.weight
        indices = (torch.special.ndtr(noise) * len(book)).int().clip(0, len(book) - 1)
        return book[indices].reshape(len(noise), *self.latent_shape)

    def forward(self, images: Array, noise: Array, labels: Array | None = None) -> Outputs:
        """`images` in [0, 1]; `noise` has shape (batch, 0) and is not read."""
        (code,) = self.encoder(images, labels)
        codes = self.quantize(code)
        latents = code + (codes.vectors - code).detach()
        return self.outputs(latents, labels, codes=codes)
