"""A convolution with a backward pass of its own. It has no twin: PyTorch's gradients are fast as they are."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .device import Array
from .meshes import size as devices

LAYOUT = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]
TERMS = 4096
"""Of a sum in a kernel's gradient on a CPU: beyond it XLA's convolutions for CPUs become several times as slow."""


class Geometry(NamedTuple):
    """Where a convolution's kernel is laid on its input, by height and width."""

    strides: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    """Zeros before and after; fewer than none cut the input."""
    spread: Pair = (1, 1)
    """Distance of the input's elements, zeros between them: a transposed convolution's stride."""
    dilation: Pair = (1, 1)
    """Distance of the kernel's elements."""


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolved(features: Array, kernel: Array, at: Geometry) -> Array:
    """A convolution, without bias, whose gradients are as fast inside a loop as outside.

    Args:
        features: (batch, height, width, channels).
        kernel: (height, width, channels, outputs).
        at: strides, padding and dilations; static.

    Autodiff writes both gradients as convolutions of other layouts. In a loop XLA for CPUs keeps those as they are, and
    has no fast kernel for them (jax issue 12868). Here the operands are transposed first, and all three are alike.
    """
    return jax.lax.conv_general_dilated(features, kernel, *at, dimension_numbers=LAYOUT)


def _keep_operands(features: Array, kernel: Array, at: Geometry) -> tuple[Array, tuple[Array, Array]]:
    return convolved(features, kernel, at), (features, kernel)


def _both_gradients(at: Geometry, operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    features, kernel = operands
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    sides = _sides(features, kernel, gradient, at)
    to_features = Geometry(at.spread, sides.of_features, at.strides, at.dilation)
    return (
        jax.lax.conv_general_dilated(gradient, turned, *to_features, dimension_numbers=LAYOUT),
        jax.lax.platform_dependent(
            features, gradient, cpu=partial(_in_groups, at, sides), default=partial(_kernel_gradient, at, sides)
        ),
    )


def _kernel_gradient(at: Geometry, sides: _Sides, features: Array, gradient: Array) -> Array:
    """The kernel's gradient: a convolution by what has the fewer places."""
    if at.strides == (1, 1) and at.spread != (1, 1):  # the features; the other way round nearly all terms were zeros
        to_kernel = Geometry(at.dilation, sides.of_features, dilation=at.spread)
        found = _correlated(gradient, features, to_kernel)
        return found[:, ::-1, ::-1].transpose(1, 2, 3, 0)
    to_kernel = Geometry(at.dilation, sides.of_kernel, at.spread, at.strides)
    return _correlated(features, gradient, to_kernel).transpose(1, 2, 0, 3)


def _correlated(images: Array, by: Array, at: Geometry) -> Array:
    """Each channel of images with each of others, summed over the batch: (channels, height, width, others)."""
    by_channel, as_kernel = images.transpose(3, 1, 2, 0), by.transpose(1, 2, 0, 3)
    return jax.lax.conv_general_dilated(by_channel, as_kernel, *at, dimension_numbers=LAYOUT)


def _in_groups(at: Geometry, sides: _Sides, features: Array, gradient: Array) -> Array:
    """The kernel's gradient on a CPU: sums of so many terms are slow there, several of fewer are not."""
    batch = len(features)
    places = min(math.prod(array.shape[1:3]) for array in (features, gradient))
    group = max(size for size in range(1, batch + 1) if batch % size == 0 and size * places <= max(TERMS, places))
    if group == batch or devices() > 1:  # of several devices each has its part already
        return _kernel_gradient(at, sides, features, gradient)
    parts = [array.reshape(-1, group, *array.shape[1:]) for array in (features, gradient)]
    gradients = jax.lax.map(lambda pair: _kernel_gradient(at, sides, *pair), tuple(parts))
    return gradients.sum(0, dtype=jnp.promote_types(gradients.dtype, jnp.float32)).astype(gradients.dtype)


class _Sides(NamedTuple):
    """The padding of both gradients' convolutions, by height and width."""

    of_features: tuple[Pair, Pair]
    of_kernel: tuple[Pair, Pair]


def _sides(features: Array, kernel: Array, gradient: Array, at: Geometry) -> _Sides:
    found = []
    for axis, (low, _) in enumerate(at.padding):
        inner, outer, reach = (
            (count - 1) * apart + 1
            for count, apart in (
                (features.shape[1 + axis], at.spread[axis]),
                (gradient.shape[1 + axis], at.strides[axis]),
                (kernel.shape[axis], at.dilation[axis]),
            )
        )
        found.append(((reach - low - 1, inner + low - outer), (low, outer + reach - 1 - inner - low)))
    rows, columns = found
    return _Sides((rows[0], columns[0]), (rows[1], columns[1]))


convolved.defvjp(_keep_operands, _both_gradients)
