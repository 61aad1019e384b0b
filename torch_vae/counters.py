"""Random numbers by their place alone, made on the device: the bits of vae_common/counters.py. Twin:
jax_vae/counters.py.
"""

from __future__ import annotations

from typing import Any

import torch

from vae_common.counters import HALF, PARITY, ROTATIONS, ROUNDS, half_width

from .device import Array

_WORD = 0xFFFFFFFF


def bits(key: Array, high: Any, low: Any) -> Array:
    """32 random bits for each counter, int64: `key` is two words, the counter's words are `high` and `low`."""
    first, second = key.long()
    keys = [first, second, first ^ second ^ PARITY]
    high, low = (torch.as_tensor(word, device=key.device).long() for word in (high, low))
    x, y = (high + keys[0]) & _WORD, (low + keys[1]) & _WORD
    x, y = torch.broadcast_tensors(x, y)
    for turn in range(5):
        for rotation in ROTATIONS[turn % 2]:
            x = (x + y) & _WORD
            y = ((y << rotation) & _WORD | (y >> (32 - rotation))) ^ x
        x = (x + keys[(turn + 1) % 3]) & _WORD
        y = (y + keys[(turn + 2) % 3] + turn + 1) & _WORD
    return x ^ y


def normals(words: Array, dtype: Any) -> Array:
    """Standard-normal numbers of 32 random bits each: a sign, and the quantile of 31 bits below 1/2."""
    lower = torch.special.ndtri(((words & HALF).to(dtype) + 0.5) / 2.0**32)
    return torch.where(words > HALF, -lower, lower)


def thresholds(words: Array) -> Array:
    """Uniform on 0..254, uint8, of 32 random bits each: to 2^-24 of their share."""
    return (((words >> 8) * 255) >> 24).to(torch.uint8)


def permuted(key: Array, places: Array, count: int) -> Array:
    """Where each place from 0 to below `count` (at most 2^31) goes in a permutation, int32; no table is made."""
    width = half_width(count)
    mask = (1 << width) - 1

    def walk(found):
        left, right = found >> width, found & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (bits(key, turn, right) & mask)
        return (left << width) | right

    found = walk(places.long())
    while (outside := found >= count).any():
        found = torch.where(outside, walk(found), found)
    return found.int()
