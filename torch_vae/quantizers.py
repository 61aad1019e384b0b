"""What makes codes of an encoder's output: a codebook's nearest vectors, or rounded numbers. Twin:
jax_vae/quantizers.py.

Inputs are (batch, places, width): one code of `width` numbers for each place. Conformance is against
`vae_common.reference.quantizers`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from vae_common.contracts import CODE_TERMS

from .device import Array

BEYOND = 1e-3
"""How far past its outermost levels, as a share of their distance, a number is bounded: they stay within reach."""


def nearest(inputs: Array, book: Array) -> Array:
    """The place in a codebook (codes, width) of the vector nearest to each input, (batch, places)."""
    # |x - v|^2 but for |x|^2, as one product: the differences of all pairs may not fit into memory.
    return ((book**2).sum(-1) - 2 * inputs @ book.T).argmin(-1)


def moved(
    inputs: Array, indices: Array, book: Array, use: Array, decay: float, restart_below: float
) -> tuple[Array, Array]:
    """A codebook and the use of its vectors after a batch: moving averages of the inputs that chose each.

    van den Oord et al. 2017, appendix A.1, in terms of the vectors themselves. `use` (codes,) is the moving average of
    how often a vector is chosen, 1 where all are chosen equally often. A vector whose use falls below `restart_below`
    becomes an input of the batch: dead codes take theirs at equal distances in the batch, whose order is random.
    """
    inputs, codes = inputs.reshape(-1, inputs.shape[-1]), len(book)
    chosen = (indices.reshape(-1, 1) == torch.arange(codes, device=inputs.device)).to(inputs.dtype)
    counts, share = chosen.sum(0), (1 - decay) * codes / len(inputs)
    use = decay * use + share * counts
    # Where none was chosen the sum is 0, whatever is left of the use.
    book = book + share * (chosen.T @ inputs - counts[:, None] * book) / torch.clip(use, min=1e-30)[:, None]
    if not restart_below:
        return book, use
    dead, places = use < restart_below, [code * len(inputs) // codes for code in range(codes)]
    return torch.where(dead[:, None], inputs[places], book), torch.where(dead, 1, use)


def bounded(inputs: Array, levels: Sequence[int]) -> Array:
    """Inputs (..., width) bounded so that rounding gives as many values as each of the width's `levels`.

    Finite scalar quantisation (Mentzer et al. 2024, appendix A.1), with the shift that leaves 0 at 0.
    """
    half, offset, shift = (inputs.new_tensor(each) for each in zip(*map(_bounds, levels)))
    return torch.tanh(inputs + shift) * half - offset


def scaled(rounded: Array, levels: Sequence[int]) -> Array:
    """Rounded numbers (..., width) brought to [-1, 1]."""
    return rounded / rounded.new_tensor([level // 2 for level in levels])


def index_of(rounded: Array, levels: Sequence[int]) -> Array:
    """One number for each combination of rounded ones, (...): the first counts fastest."""
    digits = rounded + rounded.new_tensor([level // 2 for level in levels])
    return (digits.int() * digits.new_tensor(_steps(levels), dtype=torch.int32)).sum(-1, dtype=torch.int32)


def rounded_at(indices: Array, levels: Sequence[int], dtype: torch.dtype) -> Array:
    """The inverse of `index_of`, (..., width)."""
    digits = indices[..., None] // indices.new_tensor(_steps(levels)) % indices.new_tensor(levels)
    return (digits - digits.new_tensor([level // 2 for level in levels])).to(dtype)


def use_terms(indices: Array, codes: int, dtype: torch.dtype) -> dict[str, Array]:
    """How many of the codes a batch used, and the perplexity of that use: the exponential of its entropy."""
    counts = torch.zeros(codes, dtype=dtype, device=indices.device)
    counts = counts.index_add(0, indices.reshape(-1), torch.ones_like(indices.reshape(-1), dtype=dtype))
    share = counts / indices.numel()
    entropy = -(share * torch.log(torch.where(share > 0, share, 1))).sum()
    return dict(zip(CODE_TERMS, ((counts > 0).sum().to(dtype), torch.exp(entropy))))


def _bounds(level: int) -> tuple[float, float, float]:
    """Half the distance of the outermost levels, what even numbers of levels lie off the centre, and the shift."""
    half, offset = (level - 1) * (1 + BEYOND) / 2, 0.0 if level % 2 else 0.5
    return half, offset, math.atanh(offset / half)


def _steps(levels: Sequence[int]) -> list[int]:
    """What one step of each rounded number adds to the index."""
    return [math.prod(levels[:place]) for place in range(len(levels))]
