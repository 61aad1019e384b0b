"""The engine of the conformance claims, for tests and users alike.

Everything here is handed the two halves. `tier_checks` runs every tier of tiers.py; `lockstep` trains
both from one seed, compares after each step and says where they part; `equivalence` and `energy_test` are
the statistics over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from scipy import stats

from vae_common import randomness
from vae_common.checkpoints import STEP, Arrays, weights_of
from vae_common.configs import Config, InputError
from vae_common.contracts import Terms
from vae_common.probes import Data, Probe, data_for, probes
from vae_common.progress import counted
from vae_common.tiers import (
    Halves,
    epoch_checks,
    inference_checks,
    input_checks,
    operation_checks,
    state_checks,
)
from vae_common.tolerances import Check, compare_arrays, difference, lockstep_tolerances
from vae_common.voices import voice_for


def tier_checks(
    halves: Halves, config: Config, images: np.ndarray, steps: int = 10, labels: np.ndarray | None = None
) -> Iterator[Check]:
    """Every check from T0 to T5, in order; lockstep over that many steps.

    Args:
        halves: two, by name.
        images: uint8 (N, height, width, channels), at least one batch.
        labels: integers (N,); made up where there are none and the model is given classes.
    """
    data = data_for(config, images, labels)
    yield from input_checks(halves, config, data)
    yield from operation_checks(halves, config)
    for probe in probes(voice_for(halves, config), config, data):
        yield from state_checks(halves, config, probe)
        if probe.label == "warm":
            yield from inference_checks(halves, config, probe)
    yield from lockstep(halves, config, images, steps, labels).checks()
    yield from epoch_checks(halves, config, data, steps)


@dataclass(frozen=True)
class Lockstep:
    """Both halves from the same seed, compared after every step."""

    dtype: str
    differences: dict[str, np.ndarray]
    """total, reconstruction, kl (relative) and parameters (learning rates), each (steps,)."""
    first_excess: int | None
    """The first step, from 1, where something exceeded its tolerance."""
    culprit: Check | None
    """The first tier and tensor that fails when both halves start from the state before that step."""
    weights: dict[str, Arrays]
    """Each half's weights after the last step."""

    def tolerances(self) -> dict[str, np.ndarray]:
        """Per step; float32 is not gated on parameters, nor on anything beyond 100 steps."""
        steps = len(self.differences["total"])
        return lockstep_tolerances(self.dtype, steps)

    def checks(self) -> list[Check]:
        """One check per quantity: its worst step."""
        checks = []
        for name, limits in self.tolerances().items():
            values = self.differences[name]
            worst = int(np.argmax(values / limits))
            label = f"{name} at step {worst + 1} of {len(values)}"
            checks.append(Check("T5", label, float(values[worst]), float(limits[worst])))
        return checks


def lockstep(
    halves: Halves, config: Config, images: np.ndarray, steps: int, labels: np.ndarray | None = None
) -> Lockstep:
    """Trains both halves from the config's seed, step by step, and compares after each.

    Where a tolerance is exceeded the state before that step is injected into both halves, and the tiers
    from T0 up say where they part: the first one that fails is the result's `culprit`.
    """
    a, b = halves
    data = data_for(config, images, labels)
    limits = lockstep_tolerances(config.training.dtype, steps)
    first_excess, culprit = None, None
    differences = {name: np.zeros(steps) for name in ("total", "reconstruction", "kl", "parameters")}
    trained = {name: _steps(half, config, data, steps) for name, half in halves.items()}
    previous: Arrays = {}
    ends: dict[str, Arrays] = {}
    both = counted(zip(trained[a], trained[b]), f"lockstep, {config.training.dtype}", steps, "step")
    for step, ((a_terms, a_arrays), (b_terms, b_arrays)) in enumerate(both):
        for name in Terms._fields:
            differences[name][step] = difference(getattr(a_terms, name), getattr(b_terms, name))
        ends = {a: weights_of(a_arrays), b: weights_of(b_arrays)}
        gaps = compare_arrays("T5", "", ends[a], ends[b], 0, config.training.learning_rate)
        differences["parameters"][step] = max(check.measured for check in gaps)
        if first_excess is None and any(differences[name][step] > limit[step] for name, limit in limits.items()):
            first_excess, culprit = step + 1, _culprit(halves, config, data, step, previous)
        previous = b_arrays
    return Lockstep(config.training.dtype, differences, first_excess, culprit, ends)


def _steps(half: ModuleType, config: Config, data: Data, steps: int) -> Iterator[tuple[Terms, Arrays]]:
    """Each step's mean terms, and the whole state after it."""
    state, placed = half.create_state(config, data.images), half.place_images(data.images, config)
    labels = None if data.labels is None else half.place_labels(data.labels, config)
    done, epoch = 0, 0
    while done < steps:
        draws = half.epoch_draws(config, epoch, len(data.images))
        for step in range(min(len(draws.order), steps - done)):
            thresholds = None if draws.thresholds is None else draws.thresholds[step]
            with half.precision(config.training.dtype):
                batch = half.prepare_images(placed[draws.order[step]], thresholds, draws.noise.dtype)
                noise = draws.noise[step]
            own = None if labels is None else labels[draws.order[step]]
            state, terms = half.train_step(state, batch, noise, own)
            yield Terms(*(half.to_numpy(term) for term in terms)), half.state_to_arrays(state)
        done, epoch = done + len(draws.order), epoch + 1


def _culprit(halves: Halves, config: Config, data: Data, step: int, previous: Arrays) -> Check | None:
    """The first check that fails, from the state before the step."""
    checks = [*input_checks(halves, config, data), *operation_checks(halves, config)]
    probe = next(probes(voice_for(halves, config), config, data))  # the state before the first step
    if previous:
        per_epoch = randomness.steps_per_epoch(len(data.images), config.training.batch_size)
        draws = randomness.epoch_draws(config, step // per_epoch, len(data.images))
        order, noise = draws.order[step % per_epoch], draws.noise[step % per_epoch]
        arrays = {name: a if name == STEP else a.astype(np.float64) for name, a in previous.items()}
        labels = None if data.labels is None else data.labels[order]
        probe = Probe(f"before step {step + 1}", arrays, data.images[order], noise, labels)
    checks += state_checks(halves, config, probe)
    return next((check for check in checks if not check.passed), None)


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
    reach = float(stats.t.ppf(1 - ALPHA, freedom))
    p = float(max(stats.t.sf((gap + margin) / error, freedom), stats.t.cdf((gap - margin) / error, freedom)))
    detectable = float(stats.t.ppf(1 - ALPHA / 2, freedom) + stats.t.ppf(POWER, freedom)) * error
    needed = _seeds_needed(margin, deviation, paired)
    interval = gap - reach * error, gap + reach * error
    return Equivalence(gap, interval, margin, p, _power(margin, error, freedom), detectable, seeds, needed)


def _power(margin: float, error: float, freedom: float) -> float:
    """Chance that TOST finds equal means equivalent."""
    reach = float(stats.t.ppf(1 - ALPHA, freedom))
    return max(0.0, 2 * float(stats.t.cdf(margin / error - reach, freedom)) - 1)


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


def energy_test(dissimilarities: np.ndarray, first: int, permutations: int = PERMUTATIONS) -> tuple[float, float]:
    """Do runs of two groups differ more between the groups than within them?

    Args:
        dissimilarities: symmetric (runs, runs), the first group's runs before the second's.
        first: how many runs the first group has.

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
    draw = randomness.generator(0, "split", runs)
    reached = sum(statistic(draw.permutation(runs)) >= observed - 1e-12 for _ in range(permutations))
    return observed, (reached + 1) / (permutations + 1)
