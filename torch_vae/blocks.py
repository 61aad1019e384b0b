"""Residual blocks, attention and their like, of which deep models are composed. Twin: jax_vae/blocks.py.

Features are (batch, height, width, channels). Parameters are named as in diffusers, whose checkpoints they hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from vae_common.randomness import Start

from .device import Array
from .operations import TO_NCHW, TO_NHWC, affine, convolution, convolve, linear, parameter, rounded

Activation = Callable[[Array], Array]
EPSILON = 1e-6


class GroupNorm(nn.Module):
    """Each group of channels at mean 0 and variance 1 over all places, then a scale and a shift for each channel (Wu
    and He 2018, eq. 7)."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.weight = parameter((channels,), Start(1.0))
        self.bias = parameter((channels,), Start())
        self.groups = groups

    def forward(self, features: Array) -> Array:
        normal = F.group_norm(features.permute(TO_NCHW), self.groups, self.weight, self.bias, EPSILON)
        return normal.permute(TO_NHWC)


class ResidualBlock(nn.Module):
    """Twice norm, activation and a 3x3 convolution, added to what came in, which a 1x1 convolution brings to as many
    channels."""

    spread = True  # a unit whose parameters `fully_shard` gathers when it is called

    def __init__(self, inputs: int, outputs: int, groups: int, activation: Activation, products: str | None):
        super().__init__()
        self.norm1 = GroupNorm(inputs, groups)
        self.conv1 = convolution(inputs, outputs, 3, 1, 1)
        self.norm2 = GroupNorm(outputs, groups)
        self.conv2 = convolution(outputs, outputs, 3, 1, 1)
        self.conv_shortcut = convolution(inputs, outputs, 1, 1, 0) if inputs != outputs else None
        self.activation, self.products = activation, products

    def forward(self, features: Array) -> Array:
        dtype = features.dtype
        inner = convolve(self.activation(self.norm1(features)), self.conv1, self.products).to(dtype)
        inner = convolve(self.activation(self.norm2(inner)), self.conv2, self.products).to(dtype)
        if self.conv_shortcut is not None:
            features = convolve(features, self.conv_shortcut, self.products).to(dtype)
        return features + inner


class Held(NamedTuple):
    """A linear layer whose bias is not learned."""

    weight: Array
    bias: Array

    @classmethod
    def of(cls, layer: Any) -> Held:
        """The layer's own."""
        return cls(layer.weight, layer.bias.detach())


class Attention(nn.Module):
    """Every place attends to all, with one head of all channels; added to what came in.

    The keys' bias is held. It adds the same to all scores of a query, which the softmax does not see: its gradient is
    zero but for rounding, and of that Adam would make whole steps.
    """

    spread = True  # a unit whose parameters `fully_shard` gathers when it is called

    def __init__(self, channels: int, groups: int, products: str | None):
        super().__init__()
        self.group_norm = GroupNorm(channels, groups)
        self.to_q, self.to_k, self.to_v = (linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([linear(channels, channels)])
        self.products = products

    def forward(self, features: Array) -> Array:
        batch, height, width, channels = features.shape
        places = self.group_norm(features).reshape(batch, height * width, channels)
        query, key, value = torch.chunk(
            affine(places, [self.to_q, Held.of(self.to_k), self.to_v], self.products), 3, -1
        )
        scores = (query @ key.swapaxes(1, 2)).to(features.dtype) / math.sqrt(channels)
        (shares,) = rounded(self.products, torch.softmax(scores, -1))
        attended = affine(shares @ value, [self.to_out[0]], self.products)
        return features + attended.to(features.dtype).reshape(features.shape)


class Downsampler(nn.Module):
    """Halves height and width: a 3x3 convolution, stride 2, of features with one more row below and column to the
    right."""

    spread = True  # a unit whose parameters `fully_shard` gathers when it is called

    def __init__(self, channels: int, products: str | None):
        super().__init__()
        self.conv = convolution(channels, channels, 3, 2, 0)
        self.products = products

    def forward(self, features: Array) -> Array:
        larger = F.pad(features, (0, 0, 0, 1, 0, 1))
        return convolve(larger, self.conv, self.products).to(features.dtype)


class Upsampler(nn.Module):
    """Doubles height and width: every place four times, then a 3x3 convolution."""

    spread = True  # a unit whose parameters `fully_shard` gathers when it is called

    def __init__(self, channels: int, products: str | None):
        super().__init__()
        self.conv = convolution(channels, channels, 3, 1, 1)
        self.products = products

    def forward(self, features: Array) -> Array:
        larger = features.repeat_interleave(2, 1).repeat_interleave(2, 2)
        return convolve(larger, self.conv, self.products).to(features.dtype)
