"""Residual blocks, attention and their like, of which deep models are composed. Twin: torch_vae/blocks.py.

Features are (batch, height, width, channels). Parameters are named as in diffusers, whose checkpoints they hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vae_common.randomness import Start

from .device import Array
from .operations import affine, convolution, convolve, linear, parameter, rounded

Activation = Callable[[Array], Array]
EPSILON = 1e-6


class GroupNorm(nnx.Module):
    """Each group of channels at mean 0 and variance 1 over all places, then a scale and a shift for each channel (Wu
    and He 2018, eq. 7)."""

    def __init__(self, channels: int, groups: int):
        self.weight = parameter((channels,), Start(1.0))
        self.bias = parameter((channels,), Start())
        self.groups = groups

    def __call__(self, features: Array) -> Array:
        centred = features - self._of_groups(features)
        scale = jax.lax.rsqrt(self._of_groups(centred**2) + EPSILON) * self.weight[...]
        return centred * scale + self.bias[...]

    def _of_groups(self, features: Array) -> Array:
        """Each channel's group's mean over all places, (batch, 1, 1, channels).

        By channels first: where an array has an axis for the groups, XLA for CPUs takes nearly twice as long.
        """
        by_channel = features.mean((1, 2))
        by_group = by_channel.reshape(len(features), self.groups, -1)
        return by_group.mean(-1).repeat(by_group.shape[2], 1)[:, None, None]


class ResidualBlock(nnx.Module):
    """Twice norm, activation and a 3x3 convolution, added to what came in, which a 1x1 convolution brings to as many
    channels."""

    def __init__(self, inputs: int, outputs: int, groups: int, activation: Activation, products: str | None):
        self.norm1 = GroupNorm(inputs, groups)
        self.conv1 = convolution(inputs, outputs, 3, 1, 1)
        self.norm2 = GroupNorm(outputs, groups)
        self.conv2 = convolution(outputs, outputs, 3, 1, 1)
        self.conv_shortcut = convolution(inputs, outputs, 1, 1, 0) if inputs != outputs else None
        self.activation, self.products = activation, products

    def __call__(self, features: Array) -> Array:
        dtype = features.dtype
        inner = convolve(self.activation(self.norm1(features)), self.conv1, self.products).astype(dtype)
        inner = convolve(self.activation(self.norm2(inner)), self.conv2, self.products).astype(dtype)
        if self.conv_shortcut is not None:
            features = convolve(features, self.conv_shortcut, self.products).astype(dtype)
        return features + inner


class Held(NamedTuple):
    """A linear layer whose bias is not learned."""

    kernel: Array
    bias: Array

    @classmethod
    def of(cls, layer: Any) -> Held:
        """The layer's own."""
        return cls(layer.kernel[...], jax.lax.stop_gradient(layer.bias[...]))


class Attention(nnx.Module):
    """Every place attends to all, with one head of all channels; added to what came in.

    The keys' bias is held. It adds the same to all scores of a query, which the softmax does not see: its gradient is
    zero but for rounding, and of that Adam would make whole steps.
    """

    def __init__(self, channels: int, groups: int, products: str | None):
        self.group_norm = GroupNorm(channels, groups)
        self.to_q, self.to_k, self.to_v = (linear(channels, channels) for _ in range(3))
        self.to_out = nnx.List([linear(channels, channels)])
        self.products = products

    def __call__(self, features: Array) -> Array:
        batch, height, width, channels = features.shape
        places = self.group_norm(features).reshape(batch, height * width, channels)
        layers = [self.to_q, Held.of(self.to_k), self.to_v]
        query, key, value = jnp.split(affine(places, layers, self.products), 3, -1)
        scores = (query @ key.swapaxes(1, 2)).astype(features.dtype) / math.sqrt(channels)
        (shares,) = rounded(self.products, jax.nn.softmax(scores, -1))
        attended = affine(shares @ value, [self.to_out[0]], self.products)
        return features + attended.astype(features.dtype).reshape(features.shape)


class Downsampler(nnx.Module):
    """Halves height and width: a 3x3 convolution, stride 2, of features with one more row below and column to the
    right."""

    def __init__(self, channels: int, products: str | None):
        self.conv = convolution(channels, channels, 3, 2, 0)
        self.products = products

    def __call__(self, features: Array) -> Array:
        larger = jnp.pad(features, ((0, 0), (0, 1), (0, 1), (0, 0)))
        return convolve(larger, self.conv, self.products).astype(features.dtype)


class Upsampler(nnx.Module):
    """Doubles height and width: every place four times, then a 3x3 convolution."""

    def __init__(self, channels: int, products: str | None):
        self.conv = convolution(channels, channels, 3, 1, 1)
        self.products = products

    def __call__(self, features: Array) -> Array:
        larger = features.repeat(2, 1).repeat(2, 2)
        return convolve(larger, self.conv, self.products).astype(features.dtype)
