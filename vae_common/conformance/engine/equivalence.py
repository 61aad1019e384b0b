"""Statistics over seeds: are two means equivalent (TOST), do two groups of runs differ (energy test)?

Knows numbers alone: any pair of programs can be held against each other with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t as it is: scipy.stats takes a hundred times as long

from vae_common.errors import InputError


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests (TOST) of whether two means differ by less than a margin."""

    difference: float
    """Mean of b minus mean of a; relative to a's mean where the margin is."""
    interval: tuple[float, float]
    """The 90 % confidence interval of the difference: inside the margin means equivalent at alpha 0.05."""
    margin: float
    p: float
    """The larger of the two one-sided p values."""
    power: float
    """Chance that truly equal means with this spread would be found equivalent."""
    detectable: float
    """Minimum detectable difference: the smallest true one that a two-sided t test of so many seeds with this spread
    would find (alpha 0.05) in 80 % of comparisons."""
    seeds: int
    """A half."""
    seeds_needed: int | None
    """As many a half would find truly equal means with this spread equivalent in 80 % of comparisons; None where more
    than 10,000 would not."""

    @property
    def verdict(self) -> str:
        """`equivalent`, `different` (the whole interval is outside the margin) or `not decided`."""
        low, high = self.interval
        if -self.margin <= low and high <= self.margin:
            return "equivalent"
        return "different" if low > self.margin or high < -self.margin else "not decided"


ALPHA, POWER = 0.05, 0.8
MOST_SEEDS = 10_000


def equivalence(
    a: Sequence[float], b: Sequence[float], margin: float, *, paired: bool, relative: bool = True
) -> Equivalence:
    """Tests whether b's mean equals a's to within a margin (Schuirmann 1987), each side at alpha 0.05.

    Args:
        a: one number per seed, at least 2; b likewise, of the same seeds in the same order if `paired`.
        margin: relative to a's mean, or absolute.

    Never read a `not decided` as equal, nor an insignificant difference as equivalence.
    """
    scale = abs(float(np.mean(a))) if relative else 1.0
    x, y = np.asarray(a, np.float64) / scale, np.asarray(b, np.float64) / scale
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or min(len(x), len(y)) < 2:
        raise InputError(f"equivalence: received {len(a)} and {len(b)} numbers, expected at least 2 finite ones each")
    seeds = min(len(x), len(y))
    if paired:
        deviation, freedom = float((y - x).std(ddof=1)), float(len(x) - 1)
        error = deviation / len(x) ** 0.5
    else:
        variances = [v.var(ddof=1) / len(v) for v in (x, y)]
        error = float(sum(variances)) ** 0.5
        parts = sum(v**2 / (len(w) - 1) for v, w in zip(variances, (x, y)))
        freedom = float(error**4 / parts) if parts else float(len(x) + len(y) - 2)  # Welch
        deviation = float(x.var(ddof=1) + y.var(ddof=1)) ** 0.5
    gap = float(y.mean() - x.mean())
    if error == 0:
        p = 0.0 if abs(gap) <= margin else 1.0
        return Equivalence(gap, (gap, gap), margin, p, 1.0, 0.0, seeds, 2)
    reach = float(stdtrit(freedom, 1 - ALPHA))
    p = float(max(stdtr(freedom, -(gap + margin) / error), stdtr(freedom, (gap - margin) / error)))
    detectable = float(stdtrit(freedom, 1 - ALPHA / 2) + stdtrit(freedom, POWER)) * error
    needed = _seeds_needed(margin, deviation, paired)
    interval = gap - reach * error, gap + reach * error
    return Equivalence(gap, interval, margin, p, _power(margin, error, freedom), detectable, seeds, needed)


def _power(margin: float, error: float, freedom: float) -> float:
    """Chance that TOST finds equal means equivalent."""
    reach = float(stdtrit(freedom, 1 - ALPHA))
    return max(0.0, 2 * float(stdtr(freedom, margin / error - reach)) - 1)


def _seeds_needed(margin: float, deviation: float, paired: bool) -> int | None:
    """The fewest seeds a half whose power is 80 %, by bisection: power grows with them."""

    def enough(seeds: int) -> bool:
        return _power(margin, deviation / seeds**0.5, (1 if paired else 2) * (seeds - 1)) >= POWER

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


PERMUTATIONS = 5000


def smallest_p(first: int, second: int) -> float:
    """The least p that `energy_test` can give: the groups' own split, and its mirror, among all splits."""
    mirrored = 2 if first == second else 1
    return max(mirrored / math.comb(first + second, first), 1 / (PERMUTATIONS + 1))


def energy_test(
    dissimilarities: np.ndarray, first: int, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> tuple[float, float]:
    """Do runs of two groups differ more between the groups than within them?

    Args:
        dissimilarities: symmetric (runs, runs), the first group's runs before the second's.
        first: how many runs the first group has.
        rng: draws the permutations.

    Returns:
        The energy statistic, 2 * mean between - mean within A - mean within B (Szekely and Rizzo 2013),
        and the share of permutations of the runs that reach it (p).
    """

    def statistic(order: np.ndarray) -> float:
        d = dissimilarities[np.ix_(order, order)]
        a, b, between = d[:first, :first], d[first:, first:], d[:first, first:]
        within = [m.sum() / (len(m) * (len(m) - 1)) for m in (a, b)]
        return float(2 * between.mean() - sum(within))

    runs = len(dissimilarities)
    if first < 2 or runs - first < 2:
        raise InputError(f"energy_test: received {first} and {runs - first} runs, expected at least 2 each")
    observed = statistic(np.arange(runs))
    reached = sum(statistic(rng.permutation(runs)) >= observed - 1e-12 for _ in range(permutations))
    return observed, (reached + 1) / (permutations + 1)
