"""Where a training step's time goes: the same names in both halves. What a half's profiling.py gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FORWARD = ("gather", "encoder", "latents", "decoder", "loss")
PARTS = (*FORWARD, *(f"{part}, backward" for part in ("loss", "decoder", "latents", "encoder")), "adam", "host")
"""Of a step, in the order in which they run. `gather`: the batch's images and random numbers, and what counts steps;
`latents`: what a model does between encoder and decoder; `host`: what no operation accounts for."""
BACKWARD = ", backward"
_NAMED = (
    ("adam", r"(^|\.)updated$"),
    ("encoder", r"Encoder\.|\.encode($|\.)"),
    ("decoder", r"Decoder\.|\.decode($|\.)|\.decode_flat$"),
    ("latents", r"(^|\.)reparameterize$|(AE|VAE|Autoencoder)\.(__call__|forward)$"),
    ("loss", r"(^|\.)batch_loss$"),
)
"""Parts by the functions that they are computed in; what more than one names is the first one's."""


@dataclass(frozen=True)
class Operation:
    """One kind of operation of a step, as a framework's own profiler has it."""

    name: str
    part: str
    """One of PARTS."""
    seconds: float
    """A step, its own alone."""
    calls: float
    """A step."""


@dataclass(frozen=True)
class Profile:
    """A half's operations in a step."""

    operations: Sequence[Operation]
    seconds: float
    """A step, while it was profiled."""
    trace: str
    """The framework's own trace, a file in the folder that was given; Perfetto reads it."""
    on_device: bool = False
    """Whether an accelerator's clock took the times, which a profiler on the host does not lengthen."""
    execution: str = "auto"
    """How the steps that were profiled run, as a config's `execution` names it."""


def part_of(functions: Iterable[str], backward: bool) -> str:
    """The part that something is computed in, by the qualified names of the functions that it was called from.

    What runs in none of them belongs to the gathering of the batch.
    """
    names = list(functions)
    part = next((part for part, pattern in _NAMED if any(re.search(pattern, name) for name in names)), "gather")
    return f"{part}{BACKWARD}" if backward and f"{part}{BACKWARD}" in PARTS else part


def in_order(
    launched: Sequence[tuple[str, str]], ran: Sequence[tuple[str, float]], steps: int
) -> list[tuple[str, str, float]] | None:
    """Name, part and time of what ran in so many equal steps, of which a trace does not say where it comes from.

    `launched` is name and part of each operation of such steps, one by one, `ran` name and time of those asked for.
    Before and after the steps others may have run in either. None where no steps have the same operations in the same
    order in both.
    """
    names, known = [name for name, _ in ran], [name for name, _ in launched]
    most = len(ran) // steps
    for length in range(most, most * 9 // 10, -1):
        for first in range(len(ran) - length * steps + 1):
            step = names[first : first + length]
            if names[first : first + length * steps] != step * steps:
                continue
            start = next((place for place in range(len(known)) if known[place : place + length] == step), None)
            if start is not None:
                parts = [part for _, part in launched[start : start + length]] * steps
                return [(name, part, took) for (name, took), part in zip(ran[first:], parts)]
    return None
