"""A convolution with a backward pass of its own. It has no twin: PyTorch's gradients are fast as they are."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax

from .device import Array

LAYOUT = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]


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
    rows, columns = (_side(features.shape[1 + i], kernel.shape[i], gradient.shape[1 + i], at, i) for i in range(2))
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    to_features = Geometry(at.spread, (rows.of_features, columns.of_features), at.strides, at.dilation)
    to_kernel = Geometry(at.dilation, (rows.of_kernel, columns.of_kernel), at.spread, at.strides)
    by_channel, as_kernel = features.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)
    return (
        jax.lax.conv_general_dilated(gradient, turned, *to_features, dimension_numbers=LAYOUT),
        jax.lax.conv_general_dilated(by_channel, as_kernel, *to_kernel, dimension_numbers=LAYOUT).transpose(1, 2, 0, 3),
    )


class _Side(NamedTuple):
    """The padding of both gradients' convolutions along one axis."""

    of_features: Pair
    of_kernel: Pair


def _side(inner: int, kernel: int, outer: int, at: Geometry, axis: int) -> _Side:
    low, _ = at.padding[axis]
    inner, outer, reach = (
        (count - 1) * apart + 1
        for count, apart in ((inner, at.spread[axis]), (outer, at.strides[axis]), (kernel, at.dilation[axis]))
    )
    return _Side((reach - low - 1, inner + low - outer), (low, outer + reach - 1 - inner - low))


convolved.defvjp(_keep_operands, _both_gradients)
