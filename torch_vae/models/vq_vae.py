"""The vector-quantised autoencoder. Twin: jax_vae/models/vq_vae.py."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from vae_common.config import Config
from vae_common.config.registry import code_shape
from vae_common.contracts import Codes, Outputs, Posterior
from vae_common.randomness import Start

from ..device import Array
from ..distributed import whole_batch
from ..layers import Autoencoder, Decoder, Encoder, GridDecoder, GridEncoder
from ..operations import parameter
from ..quantizers import bounded, index_of, moved, nearest, rounded_at, scaled


class VQVAE(Autoencoder):
    """The encoder's output is replaced by codes: vectors of a codebook (van den Oord et al. 2017), or rounded numbers
    (Mentzer et al. 2024).

    There is one code for each place: of a grid of convolutional features, or of groups that are cut from a dense
    output. Gradients pass straight through to the encoder. A codebook is learned by gradient or by moving averages.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        network = config.network
        self.places, self.width, self.codes = code_shape(config)
        self.levels, self.commitment = network.levels, config.loss.commitment
        self.averaged = network.codebook_update == "moving_average"
        self.decay, self.restart_below = network.codebook_decay, network.restart_below
        grid = network.code_layout == "grid"
        self.encoder = GridEncoder(config, "code", self.width) if grid else Encoder(config, heads=("code",))
        if not self.levels:
            self.codebook = nn.Embedding(self.codes, self.width)
        if self.averaged:
            self.codebook_use = parameter((self.codes,), Start(1.0))
        self.decoder = GridDecoder(config, self.width) if grid else Decoder(config)

    def quantize(self, code: Array) -> Codes:
        """The codes of an encoder's output, (batch, places * width)."""
        places = code.reshape(-1, self.places, self.width)
        nats = torch.full_like(code[:, 0], self.places * math.log(self.codes))
        if self.levels:
            inside = bounded(places, self.levels)
            chosen = torch.round(inside).detach()
            vectors, inputs = (scaled(each, self.levels).reshape(code.shape) for each in (chosen, inside))
            return Codes(inputs, vectors, index_of(chosen, self.levels), nats, torch.zeros_like(nats))
        book = self.codebook.weight
        if self.averaged:
            book = book.detach()
        indices = nearest(places, book)
        vectors = book[indices].reshape(code.shape)
        # The codebook's and the encoder's pull on each other (van den Oord et al. 2017, eq. 3).
        pull = (code.detach() - vectors) ** 2
        commitment = (code - vectors.detach()) ** 2
        return Codes(code, vectors, indices, nats, (pull * (not self.averaged) + self.commitment * commitment).sum(-1))

    def follow(self, outputs: Outputs) -> list[tuple[Any, Any]]:
        """The codebook and its use, where they are moving averages, and what a batch makes of them."""
        if not self.averaged or outputs.codes is None:
            return []
        before = self.codebook.weight, self.codebook_use
        inputs = whole_batch(outputs.codes.inputs).reshape(-1, self.places, self.width)
        after = moved(inputs, whole_batch(outputs.codes.indices), *before, self.decay, self.restart_below)
        return list(zip(before, after))

    def encode(self, images: Array, labels: Array | None = None) -> Posterior:
        """The chosen vectors as `mean`, shape (batch, *latent_shape); `log_std` is None."""
        (code,) = self.encoder(images, labels)
        return Posterior(self.quantize(code).vectors.reshape(-1, *self.latent_shape), None)

    def generate(self, noise: Array) -> Array:
        """Codes drawn uniformly, from standard-normal noise (N, places)."""
        indices = (torch.special.ndtr(noise) * self.codes).int().clip(0, self.codes - 1)
        if self.levels:
            vectors = scaled(rounded_at(indices, self.levels, noise.dtype), self.levels)
        else:
            vectors = self.codebook.weight[indices]
        return vectors.reshape(len(noise), *self.latent_shape)

    def forward(self, images: Array, noise: Array, labels: Array | None = None) -> Outputs:
        """`images` in [0, 1]; `noise` has shape (batch, 0) and is not read."""
        (code,) = self.encoder(images, labels)
        codes = self.quantize(code)
        latents = codes.inputs + (codes.vectors - codes.inputs).detach()
        return self.outputs(latents, labels, codes=codes)
