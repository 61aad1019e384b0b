"""Random numbers by their place alone, made on the device: the bits of vae_common/counters.py. Twin:
torch_vae/counters.py.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import random

from vae_common.counters import HALF, ROUNDS, half_width

from .device import Array


def bits(key: Array, high: Any, low: Any) -> Array:
    """32 random bits for each counter, uint32: `key` is two words, the counter's words are `high` and `low`."""
    words = jnp.broadcast_arrays(jnp.asarray(high, jnp.uint32), jnp.asarray(low, jnp.uint32))
    x, y = jnp.split(random.threefry_2x32(key, jnp.concatenate([word.ravel() for word in words])), 2)
    return (x ^ y).reshape(words[0].shape)


def normals(words: Array, dtype: Any) -> Array:
    """Standard-normal numbers of 32 random bits each: a sign, and the quantile of 31 bits below 1/2."""
    lower = jax.scipy.special.ndtri(((words & HALF).astype(dtype) + 0.5) / 2.0**32)
    return jnp.where(words > HALF, -lower, lower)


def thresholds(words: Array) -> Array:
    """Uniform on 0..254, uint8, of 32 random bits each: to 2^-24 of their share."""
    return (((words >> 8) * jnp.uint32(255)) >> 24).astype(jnp.uint8)


def permuted(key: Array, places: Array, count: int) -> Array:
    """Where each place from 0 to below `count` (at most 2^31) goes in a permutation, int32; no table is made."""
    width = half_width(count)
    mask = jnp.uint32((1 << width) - 1)

    def walk(found):
        left, right = found >> width, found & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (bits(key, turn, right) & mask)
        return (left << width) | right

    def on(found):
        return jnp.where(found >= count, walk(found), found)

    inside = jax.lax.while_loop(lambda found: (found >= count).any(), on, walk(places.astype(jnp.uint32)))
    return inside.astype(jnp.int32)
