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
PLACES = 2048
"""That a kernel is laid on in one product of its gradient on a CPU; with four times as many the copies of what lies
under it have left the cache."""


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
    has no fast kernel for them (jax issue 12868). Here the operands are transposed first, and all three are alike; on a
    CPU the kernel's gradient is made of matrix products.
    """
    return jax.lax.conv_general_dilated(features, kernel, *at, dimension_numbers=LAYOUT)


def _keep_operands(features: Array, kernel: Array, at: Geometry) -> tuple[Array, tuple[Array, Array]]:
    return convolved(features, kernel, at), (features, kernel)


def _both_gradients(at: Geometry, operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    features, kernel = operands
    height, width, *_ = kernel.shape
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    sides = _sides(features, kernel, gradient, at)
    to_features = Geometry(at.spread, sides.of_features, at.strides, at.dilation)
    return (
        jax.lax.conv_general_dilated(gradient, turned, *to_features, dimension_numbers=LAYOUT),
        jax.lax.platform_dependent(
            features,
            gradient,
            cpu=partial(_in_groups, at, sides, (height, width)),
            default=partial(_kernel_gradient, at, sides),
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


def _in_groups(at: Geometry, sides: _Sides, size: Pair, features: Array, gradient: Array) -> Array:
    """The kernel's gradient on a CPU: matrix products, of a few images at a time."""
    if devices() > 1:  # the compiler cuts a convolution into their parts
        return _kernel_gradient(at, sides, features, gradient)
    at_once = max(1, PLACES // min(math.prod(array.shape[1:3]) for array in (features, gradient)))
    if at_once >= len(features):
        return _by_products(at, size, features, gradient).astype(features.dtype)
    whole = len(features) // at_once * at_once
    groups = [array[:whole].reshape(-1, at_once, *array.shape[1:]) for array in (features, gradient)]
    rest = _by_products(at, size, features[whole:], gradient[whole:])
    found, _ = jax.lax.scan(lambda total, group: (total + _by_products(at, size, *group), None), rest, groups)
    return found.astype(features.dtype)


def _by_products(at: Geometry, size: Pair, features: Array, gradient: Array) -> Array:
    """The kernel's gradient, in float32 at least: products of what lies under the columns of its rows, side by side,
    and of what belongs to each place that it is laid on."""
    turned = at.strides == (1, 1) and at.spread != (1, 1)  # else nearly all of what is multiplied were zeros
    if turned:  # the features' places in the gradient
        before = [max(0, apart * (n - 1) - low) for apart, n, (low, _) in zip(at.dilation, size, at.padding)]
        last = [apart * (n - 1) + low for apart, n, (low, _) in zip(at.spread, features.shape[1:], at.padding)]
        sides = [(side, max(0, end + 1 - n), 0) for side, end, n in zip(before, last, gradient.shape[1:])]
        larger, places, step = gradient, features, at.spread
        first = [side + low for side, (low, _) in zip(before, at.padding)]
        rows, columns = ([begin - apart * i for i in range(n)] for begin, apart, n in zip(first, at.dilation, size))
    else:  # the gradient's places in the features
        sides = [(*around, apart - 1) for around, apart in zip(at.padding, at.spread)]
        larger, places, step = features, gradient, at.strides
        rows, columns = ([apart * i for i in range(n)] for apart, n in zip(at.dilation, size))
    larger = jax.lax.pad(larger, jnp.zeros((), larger.dtype), [(0, 0, 0), *sides, (0, 0, 0)])
    by_row: dict[int, Array] = {}
    for together in _rows_together(rows, step[0], len(columns) * larger.shape[3], places):
        by_row |= zip(together, _product(larger, places, together, columns, step))
    found = jnp.stack([by_row[row] for row in rows])
    return found.swapaxes(2, 3) if turned else found


def _rows_together(rows: list[int], step: int, under: int, places: Array) -> list[list[int]]:
    """The kernel's rows, those of a list in one product: it is wider, and computes what falls beside the places, too.

    Each row is alone where that were more than an eighth longer, or had no fewer numbers to copy.
    """
    alike: dict[int, list[int]] = {}
    for row in rows:  # whole steps apart
        alike.setdefault(row % step, []).append(row)
    beside = (max(rows) - min(rows)) // step
    copied = len(alike) * under + len(rows) * places.shape[3]
    worth = 8 * beside <= places.shape[1] and copied < len(rows) * under
    return list(alike.values()) if worth else [[row] for row in rows]


def _product(larger: Array, places: Array, rows: list[int], columns: list[int], step: Pair) -> Array:
    """(rows, columns, channels of the larger, of the places): summed over every place of every image."""
    first, (down, right) = min(rows), places.shape[1:3]
    later = [(row - first) // step[0] for row in rows]
    reach, across = step[0] * (down + max(later) - 1) + 1, step[1] * (right - 1) + 1
    under = [larger[:, first : first + reach : step[0], column : column + across : step[1]] for column in columns]
    moved = [jnp.pad(places, ((0, 0), (n, max(later) - n), (0, 0), (0, 0))) for n in later]
    # As matrices: of arrays of more dimensions the compiler copies one, transposed.
    below, at_places = (
        jnp.concatenate(arrays, -1).reshape(-1, len(arrays) * arrays[0].shape[3]) for arrays in (under, moved)
    )
    exact = jnp.promote_types(larger.dtype, jnp.float32)
    found = jax.lax.dot_general(below, at_places, (((0,), (0,)), ((), ())), preferred_element_type=exact)
    return found.reshape(len(columns), larger.shape[3], len(rows), places.shape[3]).transpose(2, 0, 1, 3)


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
