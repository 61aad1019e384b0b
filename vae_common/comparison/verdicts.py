"""What a comparison of test losses found, in a sentence that can be quoted, and in numbers for a table.

Every difference is PyTorch's mean less JAX's, in per cent of JAX's. The three outcomes are equivalent, different and
not decided; one seed decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vae_common.backend import FRAMEWORKS
from vae_common.conformance.engine.equivalence import ALPHA, POWER, Equivalence, equivalence

# Of the means over the same seeds with shared randomness: pairing leaves next to no spread.
PAIRED_MARGINS = {"total_nats": 0.001, "reconstruction_nats": 0.001, "kl_nats": 0.02}
# Of the means over seeds whose randomness is each framework's own.
NATIVE_MARGINS = {"total_nats": 0.02, "reconstruction_nats": 0.02, "kl_nats": 0.15}
NAMES = {"total_nats": "test total", "reconstruction_nats": "test reconstruction", "kl_nats": "test KL"}


@dataclass(frozen=True)
class Verdict:
    """What was found of one term of one model."""

    outcome: str
    """equivalent, different or not decided."""
    difference: float
    """Of the means, PyTorch less JAX, relative to JAX's."""
    seeds: int
    paired: bool
    """Whether the same seeds had the same randomness in both halves."""
    interval: tuple[float, float] | None
    """The 90 % confidence interval of the difference; None of one seed."""
    margin: float
    detectable: float | None
    """Minimum detectable difference, at alpha 0.05 and a power of 80 %; None of one seed."""
    seeds_needed: int | None
    """As many would show truly equal halves equivalent in 80 % of comparisons; None where that is not known."""


def judge(a: Sequence[float], b: Sequence[float], margin: float, paired: bool) -> Verdict | None:
    """The verdict on one term, one number per seed and half; None where both are always 0, as an AE's KL is."""
    if not (any(a) or any(b)) or not sum(a):
        return None
    if len(a) < 2 or len(b) < 2:
        difference = (sum(b) / len(b) - sum(a) / len(a)) / abs(sum(a) / len(a))
        return Verdict("not decided", difference, min(len(a), len(b)), paired, None, margin, None, None)
    return of_equivalence(equivalence(a, b, margin, paired=paired), paired)


def of_equivalence(found: Equivalence, paired: bool) -> Verdict:
    """The verdict that an equivalence test gives."""
    return Verdict(
        found.verdict, found.difference, found.seeds, paired, found.interval, found.margin, found.detectable,
        found.seeds_needed,
    )  # fmt: skip


def sentence(model: str, term: str, verdict: Verdict) -> str:
    """The verdict as a sentence, for example: VAE, test total: equivalent. PyTorch is +0.014 % of JAX, ..."""
    jax, torch = FRAMEWORKS["jax"], FRAMEWORKS["torch"]
    head = f"{model}, {NAMES[term]}: {verdict.outcome}."
    sign = f"{torch} minus {jax}, relative to {jax}"
    if verdict.interval is None:
        return (
            f"{head} The difference is {percent(verdict.difference)} ({sign}) for one seed, which says nothing of "
            "other seeds; with two or more there is an interval."
        )
    low, high = verdict.interval
    kind = "paired seeds" if verdict.paired else "independent seeds a half"
    found = (
        f"The difference is {percent(verdict.difference)} ({sign}; {verdict.seeds} {kind}), 90 % interval "
        f"{percent(low)} to {percent(high)}"
    )
    limit = f"margin of {percent(verdict.margin, signed=False)}"
    if verdict.outcome == "equivalent":
        return f"{head} {found}, within the {limit}."
    if verdict.outcome == "different":
        return f"{head} {found}, wholly outside the {limit}."
    return f"{head} {found}, which reaches across the {limit}. {_more(verdict)}"


def _more(verdict: Verdict) -> str:
    """What would decide it."""
    if verdict.seeds_needed is None:
        return "No practical number of seeds would do at this spread."
    if verdict.seeds_needed > verdict.seeds:
        return (
            f"{verdict.seeds} are too few for this spread: {verdict.seeds_needed} would show equal halves equivalent "
            f"in {POWER:.0%} of comparisons."
        )
    return "The seeds are enough for equal halves; the difference lies near the margin."


def percent(value: float, signed: bool = True) -> str:
    """A relative number in per cent: three decimals, or as many as show two digits of it (ten at most)."""
    digits = 3 if value == 0 else min(10, max(3, 1 - math.floor(math.log10(abs(100 * value)))))
    return f"{100 * value:{'+' if signed else ''}.{digits}f} %"


def as_record(verdict: Verdict | None) -> dict[str, Any] | None:
    """A verdict for a JSON record, with what its numbers stand for in the keys."""
    if verdict is None:
        return None
    return {
        "outcome": verdict.outcome,
        "difference_relative": verdict.difference,
        "interval_90_percent": verdict.interval,
        "margin": verdict.margin,
        "minimum_detectable_difference": verdict.detectable,
        "alpha": ALPHA,
        "power": POWER,
        "seeds": verdict.seeds,
        "paired": verdict.paired,
        "seeds_needed": verdict.seeds_needed,
    }


def from_record(record: Mapping[str, Any] | None) -> Verdict | None:
    """The inverse of `as_record`."""
    if record is None:
        return None
    interval = record["interval_90_percent"]
    return Verdict(
        record["outcome"],
        record["difference_relative"],
        record["seeds"],
        record["paired"],
        None if interval is None else (interval[0], interval[1]),
        record["margin"],
        record["minimum_detectable_difference"],
        record["seeds_needed"],
    )
