"""Random numbers by their place alone: any device draws just its own part, and every one gets the same. In NumPy.

Threefry-2x32 (Salmon et al. 2011) of a key over a 64-bit counter, its two words xored: what `jax.random.bits` gives for
a key and a flat index in its partitionable form. Each half has the same functions (counters.py), with equal bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY, HALF = 0x1BD11BDA, 0x7FFFFFFF
ROUNDS = 4
"""Of the permutation's Feistel network: with words that are random functions, four make it a random permutation (Luby
and Rackoff 1988)."""


def bits(key: Any, high: Any, low: Any) -> np.ndarray:
    """32 random bits for each counter, uint32: `key` is two words, the counter's words are `high` and `low`."""
    keys = [np.uint32(key[0]), np.uint32(key[1])]
    keys.append(keys[0] ^ keys[1] ^ np.uint32(PARITY))
    with np.errstate(over="ignore"):
        x = np.asarray(high, np.uint32) + keys[0]
        y = np.asarray(low, np.uint32) + keys[1]
        for turn in range(5):
            for rotation in ROTATIONS[turn % 2]:
                x = x + y
                y = (y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))
                y = y ^ x
            x = x + keys[(turn + 1) % 3]
            y = y + keys[(turn + 2) % 3] + np.uint32(turn + 1)
    found: np.ndarray = x ^ y
    return found


def normals(words: np.ndarray) -> np.ndarray:
    """Standard-normal numbers of 32 random bits each, float64: a sign, and the quantile of 31 bits below 1/2.

    Below 1/2 floats are densest, so that float32 gives the same numbers rounded.
    """
    from scipy import special  # only those who need it wait for it

    lower: np.ndarray = special.ndtri(((words & np.uint32(HALF)).astype(np.float64) + 0.5) / 2**32)
    return np.where(words > HALF, -lower, lower)


def thresholds(words: np.ndarray) -> np.ndarray:
    """Uniform on 0..254, uint8, of 32 random bits each: to 2^-24 of their share."""
    with np.errstate(over="ignore"):
        found: np.ndarray = (((words >> np.uint32(8)) * np.uint32(255)) >> np.uint32(24)).astype(np.uint8)
    return found


WINDOW = 64
"""Blocks whose images are mixed."""
_FIRST_WINDOW = 8
"""The counters of a window's own key begin there: those below are `permuted`'s."""


def in_blocks(key: Any, places: Any, count: int, block: int) -> np.ndarray:
    """As `permuted`, with images that lie beside each other: blocks of them in a random order, mixed in windows.

    What no block takes comes last, mixed; where the blocks begin is drawn, too. `places` are in ascending order.
    """
    if block == 1:
        return permuted(key, places, count)
    places = np.asarray(places, np.int64)
    blocks, whole, rows = count // block, count - count % block, np.empty(places.shape, np.int64)
    starts = [*range(0, whole, WINDOW * block), *[whole] * (whole < count)]
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], count])):
        here = slice(*np.searchsorted(places, (start, end)))
        if here.start < here.stop:
            own = bits(key, _FIRST_WINDOW + number, np.arange(2))
            mixed = start + permuted(own, places[here] - start, end - start)
            rows[here] = mixed if start == whole else permuted(key, mixed // block, blocks) * block + mixed % block
    found: np.ndarray = (rows + int(bits(key, ROUNDS, 0))) % count
    return found


def half_width(count: int) -> int:
    """Bits of each half of the numbers that `permuted` permutes: as few as hold all numbers below `count`."""
    return max(1, math.ceil(math.log2(max(count, 2)) / 2))


def permuted(key: Any, places: Any, count: int) -> np.ndarray:
    """Where each place from 0 to below `count` (at most 2^31) goes in a permutation of them, int64; no table is made.

    A Feistel network over the next even number of bits, walked on until it falls below `count`.
    """
    width = half_width(count)
    mask = np.uint32((1 << width) - 1)
    found = np.array(places, np.uint32)
    outside = np.ones(found.shape, bool)
    while outside.any():
        left, right = found[outside] >> np.uint32(width), found[outside] & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (bits(key, np.uint32(turn), right) & mask)
        found[outside] = (left << np.uint32(width)) | right
        outside = found >= count
    return found.astype(np.int64)
