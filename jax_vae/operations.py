"""The operations that models are made of, and what holds their parameters. Twin: torch_vae/operations.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vae_common.randomness import Start

from .convolutions import Geometry, convolved
from .device import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
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


def convolution(inputs: int, outputs: int, kernel: int = 4, stride: int = 2, padding: int = 1) -> nnx.Conv:
    """A convolution; kernel 4, stride 2 and padding 1 halve height and width, with no edge treated by itself."""
    sides = [(padding, padding)] * 2
    return nnx.Conv(inputs, outputs, (kernel, kernel), strides=(stride, stride), padding=sides, rngs=nnx.Rngs(0))


def deconvolution(inputs: int, outputs: int) -> nnx.ConvTranspose:
    """A transposed convolution that doubles height and width: kernel 4, stride 2."""
    return nnx.ConvTranspose(inputs, outputs, (4, 4), strides=(2, 2), transpose_kernel=True, rngs=nnx.Rngs(0))


def parameter(shape: tuple[int, ...], start: Start) -> nnx.Param:
    """A parameter that belongs to no layer; `start` says what it is before the first step."""
    return nnx.Param(jnp.zeros(shape), start=start)


def affine(features: Array, layers: Sequence[Any], products: str | None) -> Array:
    """One matrix product for layers that read the same features; their outputs side by side.

    Not the layers' own call: several narrow products take longer than one, and where `products` is a dtype,
    operands and result are rounded to it.
    """
    kernel, bias = layers[0].kernel[...], layers[0].bias[...]
    if len(layers) > 1:
        kernel = jnp.concatenate([layer.kernel[...] for layer in layers], 1)
        bias = jnp.concatenate([layer.bias[...] for layer in layers])
    features, kernel, bias = rounded(products, features, kernel, bias)
    rows = features.reshape(-1, features.shape[-1])  # of more axes XLA for CPUs copies, transposed, for the gradient
    return (rows @ kernel + bias).reshape(*features.shape[:-1], len(bias))


def convolve(features: Array, layer: Any, products: str | None) -> Array:
    """A convolution of features (batch, height, width, channels)."""
    features, kernel, bias = rounded(products, features, layer.kernel[...], layer.bias[...])
    return convolved(features, kernel, Geometry(layer.strides, tuple(layer.padding))) + bias


def deconvolve(features: Array, layer: Any, products: str | None) -> Array:
    """A transposed convolution of features (batch, height, width, channels)."""
    features, kernel, bias = rounded(products, features, layer.kernel[...], layer.bias[...])
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return convolved(features, turned, Geometry(padding=((2, 2), (2, 2)), spread=layer.strides)) + bias


def enlarged(features: Array, height: int, width: int) -> Array:
    """Features (batch, height, width, channels) with zeros below and to the right, up to that size."""
    return jnp.pad(features, ((0, 0), (0, height - features.shape[1]), (0, width - features.shape[2]), (0, 0)))


def rounded(products: str | None, *arrays: Array) -> tuple[Array, ...]:
    """The arrays in the dtype of the matrix products, where that is not their own."""
    return arrays if products is None else tuple(array.astype(products) for array in arrays)
