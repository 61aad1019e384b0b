"""The KL autoencoder of latent-diffusion models. Twin: jax_vae/models/kl_autoencoder.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vae_common.config import Config
from vae_common.contracts import Outputs, Posterior, StochasticLayer
from vae_common.randomness import LOG_SCALE, Start

from ..blocks import Attention, Downsampler, GroupNorm, ResidualBlock, Upsampler
from ..device import Array
from ..layers import Autoencoder, reparameterize
from ..operations import ACTIVATIONS, convolution, convolve, parameter

LOWEST, HIGHEST = -30.0, 20.0
"""Of log sigma^2."""
LAST = "silu"
"""The activation before an encoder's or a decoder's last convolution, whatever the others are; as in diffusers."""


class _Blocks(nn.Module):
    """What makes residual blocks of one network's settings."""

    def __init__(self, config: Config):
        super().__init__()
        network = config.network
        self.groups, self.attends = network.norm_groups, network.attention == "middle"
        self.activation, self.products = ACTIVATIONS[network.activation], config.training.product_dtype
        self.again = network.rematerialize == "blocks"

    def resnet(self, inputs: int, outputs: int) -> ResidualBlock:
        """One residual block."""
        return ResidualBlock(inputs, outputs, self.groups, self.activation, self.products)

    def run(self, block: Any, features: Array) -> Array:
        """A block's output; where it is to be computed again, nothing inside it is kept for the backward pass."""
        return checkpoint(block, features, use_reentrant=False) if self.again else block(features)


class DownBlock(_Blocks):
    """Residual blocks at one size, then, but in the last one, half of it."""

    def __init__(self, config: Config, inputs: int, outputs: int, halves: bool):
        super().__init__(config)
        layers = config.network.block_layers
        self.resnets = nn.ModuleList([self.resnet(inputs if i == 0 else outputs, outputs) for i in range(layers)])
        self.downsamplers = nn.ModuleList([Downsampler(outputs, self.products)] if halves else [])

    def forward(self, features: Array) -> Array:
        for block in (*self.resnets, *self.downsamplers):
            features = self.run(block, features)
        return features


class MiddleBlock(_Blocks):
    """Two residual blocks with attention, if any, between them."""

    def __init__(self, config: Config, channels: int):
        super().__init__(config)
        self.resnets = nn.ModuleList([self.resnet(channels, channels) for _ in range(2)])
        attention = [Attention(channels, self.groups, self.products)] if self.attends else []
        self.attentions = nn.ModuleList(attention)

    def forward(self, features: Array) -> Array:
        first, second = self.resnets
        for block in (first, *self.attentions, second):
            features = self.run(block, features)
        return features


class UpBlock(_Blocks):
    """Residual blocks at one size, one more than a DownBlock has, then, but in the last one, twice of it."""

    def __init__(self, config: Config, inputs: int, outputs: int, doubles: bool):
        super().__init__(config)
        layers = config.network.block_layers + 1
        self.resnets = nn.ModuleList([self.resnet(inputs if i == 0 else outputs, outputs) for i in range(layers)])
        self.upsamplers = nn.ModuleList([Upsampler(outputs, self.products)] if doubles else [])

    def forward(self, features: Array) -> Array:
        for block in (*self.resnets, *self.upsamplers):
            features = self.run(block, features)
        return features


class ResidualEncoder(nn.Module):
    """Images (batch, height, width, channels) in [-1, 1] to a smaller grid of `outputs` channels."""

    def __init__(self, config: Config, outputs: int):
        super().__init__()
        channels, groups = config.network.block_channels, config.network.norm_groups
        before, last = (channels[0], *channels), len(channels) - 1
        self.conv_in = convolution(config.image_shape[2], channels[0], 3, 1, 1)
        blocks = [DownBlock(config, a, b, i < last) for i, (a, b) in enumerate(zip(before, channels))]
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = MiddleBlock(config, channels[-1])
        self.conv_norm_out = GroupNorm(channels[-1], groups)
        self.conv_out = convolution(channels[-1], outputs, 3, 1, 1)
        self.products = config.training.product_dtype

    def forward(self, images: Array) -> Array:
        features = convolve(images, self.conv_in, self.products).to(images.dtype)
        for block in (*self.down_blocks, self.mid_block):
            features = block(features)
        features = ACTIVATIONS[LAST](self.conv_norm_out(features))
        return convolve(features, self.conv_out, self.products).to(images.dtype)


class ResidualDecoder(nn.Module):
    """The encoder's blocks in reverse: a grid of latents to images (batch, height, width, channels)."""

    def __init__(self, config: Config):
        super().__init__()
        channels, groups = config.network.block_channels[::-1], config.network.norm_groups
        before, last = (channels[0], *channels), len(channels) - 1
        self.conv_in = convolution(config.network.latent_channels, channels[0], 3, 1, 1)
        self.mid_block = MiddleBlock(config, channels[0])
        blocks = [UpBlock(config, a, b, i < last) for i, (a, b) in enumerate(zip(before, channels))]
        self.up_blocks = nn.ModuleList(blocks)
        self.conv_norm_out = GroupNorm(channels[-1], groups)
        self.conv_out = convolution(channels[-1], config.image_shape[2], 3, 1, 1)
        if config.loss.likelihood.learns_scale:
            self.log_scale = parameter((1,), Start(LOG_SCALE))
        self.products = config.training.product_dtype

    def forward(self, latents: Array) -> Array:
        features = convolve(latents, self.conv_in, self.products).to(latents.dtype)
        for block in (self.mid_block, *self.up_blocks):
            features = block(features)
        features = ACTIVATIONS[LAST](self.conv_norm_out(features))
        return convolve(features, self.conv_out, self.products).to(latents.dtype)


class KLAutoencoder(Autoencoder):
    """Residual blocks and attention around a grid of latents, Gaussian, with a standard-normal prior (Rombach et al.
    2022, appendix G, regularised by the KL). Its weights are those of diffusers' `AutoencoderKL`."""

    encoder: Any
    decoder: Any

    def __init__(self, config: Config):
        super().__init__(config)
        network, channels = config.network, config.network.latent_channels
        self.encoder = ResidualEncoder(config, 2 * channels)
        self.decoder = ResidualDecoder(config)
        around = network.latent_convolutions
        self.quant_conv = convolution(2 * channels, 2 * channels, 1, 1, 0) if around in ("both", "encoder") else None
        self.post_quant_conv = convolution(channels, channels, 1, 1, 0) if around in ("both", "decoder") else None
        self.products = config.training.product_dtype

    def moments(self, images: Array) -> Array:
        """Mean and log sigma^2 side by side, (batch, height, width, 2 * latent_channels); not clamped."""
        features = self.encoder(2 * images.reshape(-1, *self.image_shape) - 1)
        if self.quant_conv is None:
            return features
        return convolve(features, self.quant_conv, self.products).to(features.dtype)

    def encode(self, images: Array, labels: Array | None = None) -> Posterior:
        """Mean and log standard deviation, (batch, height, width, latent_channels) each."""
        mean, log_variance = torch.chunk(self.moments(images), 2, -1)
        return Posterior(mean, torch.clip(log_variance, LOWEST, HIGHEST) / 2)

    def decode(self, latents: Array, labels: Array | None = None) -> Array:
        """Logits of the pixels, or pixels in [-1, 1] where the likelihood is of those, (batch[, samples], h, w, c)."""
        grids = latents.reshape(-1, *self.latent_shape)
        if self.post_quant_conv is not None:
            grids = convolve(grids, self.post_quant_conv, self.products).to(latents.dtype)
        images = self.decoder(grids)
        return images.reshape(*latents.shape[: latents.ndim - 3], *self.image_shape)

    def forward(self, images: Array, noise: Array, labels: Array | None = None) -> Outputs:
        """`images` in [0, 1]; `noise` standard normal, (batch[, samples], height * width * latent_channels)."""
        posterior = Posterior(*(array.reshape(len(array), -1) for array in self.encode(images)))
        latents = reparameterize(posterior, noise)
        return self.outputs(latents, layers=(StochasticLayer(posterior, self.prior(), latents, noise),))
