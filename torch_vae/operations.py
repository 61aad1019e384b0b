"""The operations that models are made of, and what holds their parameters. Twin: jax_vae/operations.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vae_common.randomness import Start

from .device import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "softplus": partial(F.softplus, threshold=50),  # the default, 20, is off by 2e-9
    "gelu": F.gelu,
    "silu": F.silu,
}
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)  # views: a permuted NHWC array is in the channels-last layout


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A fully connected layer; an experiment's weights replace its own (see `create_model`)."""
    return nn.Linear(inputs, outputs)


def convolution(inputs: int, outputs: int, kernel: int = 4, stride: int = 2, padding: int = 1) -> nn.Conv2d:
    """A convolution; kernel 4, stride 2 and padding 1 halve height and width, with no edge treated by itself."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding)


def deconvolution(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles height and width: kernel 4, stride 2."""
    return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)


def parameter(shape: tuple[int, ...], start: Start) -> nn.Parameter:
    """A parameter that belongs to no layer; `start` says what it is before the first step."""
    made = nn.Parameter(torch.zeros(shape))
    made.start = start  # type: ignore[attr-defined]
    return made


def affine(features: Array, layers: Sequence[Any], products: str | None) -> Array:
    """One matrix product for layers that read the same features; their outputs side by side.

    Not the layers' own call: several narrow products take longer than one, and where `products` is a dtype,
    operands and result are rounded to it.
    """
    weight, bias = layers[0].weight, layers[0].bias
    if len(layers) > 1:
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    features, weight, bias = rounded(products, features, weight, bias)
    return features @ weight.T + bias  # on a CPU faster than addmm, which reads a broadcast bias


def convolve(features: Array, layer: Any, products: str | None) -> Array:
    """A convolution of features (batch, height, width, channels)."""
    features, weight, bias = rounded(products, features, layer.weight, layer.bias)
    return F.conv2d(features.permute(TO_NCHW), weight, bias, layer.stride, layer.padding).permute(TO_NHWC)


def deconvolve(features: Array, layer: Any, products: str | None) -> Array:
    """A transposed convolution of features (batch, height, width, channels)."""
    features, weight, bias = rounded(products, features, layer.weight, layer.bias)
    return F.conv_transpose2d(features.permute(TO_NCHW), weight, bias, layer.stride, layer.padding).permute(TO_NHWC)


def enlarged(features: Array, height: int, width: int) -> Array:
    """Features (batch, height, width, channels) with zeros below and to the right, up to that size."""
    if features.shape[1:3] == (height, width):  # else `pad` copies them all the same
        return features
    return F.pad(features, (0, 0, 0, width - features.shape[2], 0, height - features.shape[1]))


def rounded(products: str | None, *arrays: Array) -> tuple[Array, ...]:
    """The arrays in the dtype of the matrix products, where that is not their own."""
    return arrays if products is None else tuple(array.to(getattr(torch, products)) for array in arrays)
