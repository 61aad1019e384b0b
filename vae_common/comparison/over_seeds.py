"""The claims over seeds, paired and independent, each with its verdict and its numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_common import randomness
from vae_common.comparison.claims import Claim, EnergyTest, EquivalenceClaim, NeighbourhoodClaim
from vae_common.comparison.verdicts import PAIRED_MARGINS
from vae_common.config import Config
from vae_common.config.registry import MODELS
from vae_common.conformance.engine.equivalence import energy_test, equivalence, smallest_p
from vae_common.errors import InputError
from vae_common.files import read_json, reason
from vae_common.metrics import similarity
from vae_common.metrics.descriptors import METRICS
from vae_common.metrics.table import Margin
from vae_common.runs.epoch_records import TERMS

DEVIATIONS_IN_MARGIN = 2.7
"""Where a margin has no fixed size it is so many standard deviations between seeds."""
MARGINS = dict.fromkeys(TERMS, Margin(True)) | {
    name: metric.margin for name, metric in METRICS.items() if metric.margin is not None
}
GATE, ALARM = "mutual_neighbours", 0.01
"""The measure whose p value raises the alarm on the latents' neighbourhoods, and below what."""
ROWS = 1000
"""Images whose latents are compared."""

Values = Mapping[str, float]


def paired(model: str, losses: Mapping[str, Sequence[Values]]) -> list[Claim]:
    """One claim per term; `losses` holds each half's test terms, the same seeds in the same order."""
    found: list[Claim] = []
    for term, margin in PAIRED_MARGINS.items():
        a, b = ([run[term] for run in runs] for runs in losses.values())
        if any(a) or any(b):
            result = equivalence(a, b, margin, paired=True)
            found.append(EquivalenceClaim(model, result.verdict, term, True, True, "fixed", result))
    return found


def independent(
    model: str,
    losses: Mapping[str, Sequence[Values]],
    described: Mapping[str, Sequence[Values]],
    means: Sequence[np.ndarray],
    pilot: Mapping[str, Sequence[Values]] | None = None,
) -> list[Claim]:
    """Losses, latent descriptors and neighbourhoods.

    Args:
        losses: each half's test terms, one dict per seed.
        described: each half's latent descriptors, one dict per seed.
        means: latents (N, latent_dim) of the same images, the first half's runs before the second's.
        pilot: losses and descriptors of other seeds, each half's, whose pooled spread sets the margins;
            without it the smaller of the halves' spreads in these very runs does.
    """
    values = _joined(losses, described)
    found: list[Claim] = []
    for metric, margin in MARGINS.items():
        a, b = _of_metric(values, metric)
        wide = _of_metric(pilot or values, metric)
        if min(map(len, (a, b, *wide))) < 2 or not (any(a) or any(b)):
            continue
        size, source = _margin(margin, wide, pilot is not None)
        result = equivalence(a, b, size, paired=False, relative=margin.relative)
        found.append(EquivalenceClaim(model, result.verdict, metric, False, margin.relative, source, result))
    return [*found, neighbourhoods(model, means, len(next(iter(losses.values()))))]


def _of_metric(values: Mapping[str, Sequence[Values]], metric: str) -> list[list[float]]:
    """Each half's numbers, of the seeds that have one."""
    return [[run[metric] for run in runs if metric in run] for runs in values.values()]


def _margin(margin: Margin, wide: Sequence[Sequence[float]], from_pilot: bool) -> tuple[float, str]:
    """A margin's size, and where it comes from."""
    if margin.size is not None:
        return margin.size, "fixed"
    scales = (abs(statistics.fmean(values)) if margin.relative else 1.0 for values in wide)
    deviations = [statistics.stdev(values) / scale for values, scale in zip(wide, scales)]
    # Of these very runs the smaller one: a fault that inflates one half's must not widen the margin.
    deviation = statistics.fmean(d**2 for d in deviations) ** 0.5 if from_pilot else min(deviations)
    seeds = "earlier" if from_pilot else "these very"
    return DEVIATIONS_IN_MARGIN * deviation, f"{DEVIATIONS_IN_MARGIN} standard deviations between {seeds} seeds"


def neighbourhoods(model: str, means: Sequence[np.ndarray], first: int) -> NeighbourhoodClaim:
    """Do the halves' latents differ more between the halves than within them? One measure is the gate.

    `means` are latents (N, latent_dim) of the same images, `first` runs of one half before the other's.
    """
    rows = randomness.some_rows(len(means[0]), ROWS)
    sets = [np.asarray(mean[rows], np.float64) for mean in means]
    apart = similarity.dissimilarities(sets, scale_free=not MODELS[model].draws)
    least = smallest_p(first, len(sets) - first)
    tests = {}
    for metric, matrix in apart.items():
        order = randomness.generator(0, "split", len(matrix))
        tests[metric] = EnergyTest(*energy_test(matrix, first, order))
    # The absence of an alarm is no proof: the descriptors carry the claim of equivalence.
    verdict = "different" if tests[GATE].p < ALARM else "no alarm"
    return NeighbourhoodClaim(model, "not decided" if least >= ALARM else verdict, GATE, first, least, tests)


def read_pilot(path: Path, config: Config, seeds: Sequence[int], data: str) -> dict[str, list[Values]]:
    """Losses and descriptors of an earlier independent comparison, from its summary.json.

    Raises InputError where it is not one, differs in more than its seeds, was made on other data (by their fingerprint,
    which the summaries of earlier versions do not have), or shares a seed.
    """
    summary = read_json(path, "pilot")
    try:
        earlier = summary["models"][config.model]
        before = Config.from_record(earlier["config"])
        used = {seed for of_half in earlier["seeds"].values() for seed in of_half}
        values = _joined(earlier["losses_by_seed"], earlier["latents_of_each_half"])
        check = summary["check"]
        _require_finite(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"pilot: {path} is no comparison's summary.json with {config.model}"
        raise InputError(f"{said} ({reason(error)})") from error
    if summary.get("data", data) != data:
        raise InputError(f"pilot: {path} was made on other data, expected the same")
    if check != "independent" or before.comparable != config.comparable:
        raise InputError(f"pilot: {path} is another experiment, expected --check independent and the same config")
    if shared := used & set(seeds):
        raise InputError(f"pilot: {path} shares seeds {sorted(shared)} with this comparison, expected others")
    return values


def _require_finite(values: Mapping[str, Sequence[Values]]) -> None:
    numbers: list[Any] = [value for of_half in values.values() for run in of_half for value in run.values()]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("it holds NaN or infinite numbers")


def _joined(*parts: Mapping[str, Sequence[Values]]) -> dict[str, list[Values]]:
    """Each half's dicts per seed, merged seed by seed."""
    joined: dict[str, list[Values]] = {}
    for name in parts[0]:
        joined[name] = []
        for of_seed in zip(*(part[name] for part in parts)):
            merged: dict[str, float] = {}
            for values in of_seed:
                merged |= values
            joined[name].append(merged)
    return joined
