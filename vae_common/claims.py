"""What a comparison claims of the two halves, each with its verdict and its numbers.

    lockstep     the same seed, step by step (same_seed.py)
    paired       S1: the same seeds, shared randomness, losses by TOST
    independent  S2: disjoint seeds, each framework's own randomness, losses and (L3) latent descriptors by TOST;
                 L2: an energy test on the neighbourhoods of all runs' latents

A statistical claim ends as "equivalent", "not decided" or "different".
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vae_common import comparison, latents
from vae_common.configs import MODELS, Config, InputError, require_count
from vae_common.files import read_json, reason
from vae_common.randomness import some_rows
from vae_common.verdicts import PAIRED_MARGINS

HOLDS = ("equal", "equivalent")
# S2 and L3; where there is no number the margin is so many standard deviations between seeds.
SPREADS_IN_MARGIN = 2.7
MARGINS: dict[str, tuple[str, float | None]] = {
    "total_nats": ("relative", None),
    "reconstruction_nats": ("relative", None),
    "kl_nats": ("relative", None),
    "knn_accuracy": ("absolute", 0.05),
    "trustworthiness": ("absolute", 0.025),
    "silhouette": ("absolute", None),
    # These two alone see the posterior's scale.
    "aggregate_posterior_kl_nats": ("relative", None),
    "active_units": ("absolute", 0.5),
}
MOST_LOCKSTEP = 100_000
# L2
GATE, ALARM = "mutual_neighbours", 0.01
ROWS = 1000
"""Images whose latents are compared."""

Claim = dict[str, Any]
Values = Mapping[str, float]


@dataclass(frozen=True)
class ClaimOptions:
    """What a user may have checked about the halves."""

    check: Literal["none", "lockstep", "paired", "independent"] = "none"
    """lockstep: the same seed, step by step, in float64; paired: the same seeds, statistically;
    independent: disjoint seeds and native randomness. Exit status 1 where a claim does not hold."""
    lockstep_steps: int = 300
    """Training steps of --check lockstep."""
    pilot: Path | None = None
    """summary.json of an earlier --check independent on other seeds, whose spread sets the margins of this one."""

    def __post_init__(self) -> None:
        require_count("lockstep_steps", self.lockstep_steps, 1, MOST_LOCKSTEP)
        if self.pilot is not None and not self.disjoint:
            raise InputError(f"pilot: received {self.pilot} without --check independent, expected both")

    @property
    def disjoint(self) -> bool:
        """Whether the two halves train on different seeds."""
        return self.check == "independent"

    def require_seeds(self, count: int) -> None:
        """Raises InputError where so few seeds a half can show nothing."""
        if self.check in ("paired", "independent") and count < 2:
            raise InputError(f"seeds: received {count} for --check {self.check}, expected at least 2")

    def require_randomness(self, randomness: str) -> None:
        """Raises InputError where the numbers were drawn in another way than the claim is about."""
        expected = {"lockstep": "shared", "paired": "shared", "independent": "native"}.get(self.check, randomness)
        if randomness != expected:
            raise InputError(f"randomness: received {randomness} for --check {self.check}, expected {expected}")


def paired(model: str, losses: Mapping[str, Sequence[Values]]) -> list[Claim]:
    """S1: one claim per term; `losses` holds each half's test terms, the same seeds in the same order."""
    found = []
    for term, margin in PAIRED_MARGINS.items():
        a, b = ([run[term] for run in runs] for runs in losses.values())
        if any(a) or any(b):
            result = comparison.equivalence(a, b, margin, paired=True)
            found.append(_claim(f"paired seeds, {name_of(term)}", model, result, len(a), "relative", "fixed"))
    return found


def independent(
    model: str,
    losses: Mapping[str, Sequence[Values]],
    described: Mapping[str, Sequence[Values]],
    means: Sequence[np.ndarray],
    pilot: Mapping[str, Sequence[Values]] | None = None,
) -> list[Claim]:
    """S2, L2 and L3.

    Args:
        losses: each half's test terms, one dict per seed.
        described: each half's latent descriptors, one dict per seed.
        means: latents (N, latent_dim) of the same images, the first half's runs before the second's.
        pilot: losses and descriptors of other seeds, each half's, whose pooled spread sets the margins;
            without it the smaller of the halves' spreads in these very runs does.
    """
    values = _joined(losses, described)
    spreads = pilot or values
    found = []
    for metric, (kind, margin) in MARGINS.items():
        a, b = ([run[metric] for run in runs if metric in run] for runs in values.values())
        wide = [[run[metric] for run in runs if metric in run] for runs in spreads.values()]
        if min(map(len, (a, b, *wide))) < 2 or not (any(a) or any(b)):
            continue
        source = "fixed"
        if margin is None:
            scales = (abs(statistics.fmean(v)) if kind == "relative" else 1.0 for v in wide)
            spread = [statistics.stdev(v) / scale for v, scale in zip(wide, scales)]
            # Of these very runs the smaller one: a fault that inflates one half's must not widen the margin.
            margin = SPREADS_IN_MARGIN * (statistics.fmean(s**2 for s in spread) ** 0.5 if pilot else min(spread))
            source = f"{SPREADS_IN_MARGIN} standard deviations between {'earlier' if pilot else 'these very'} seeds"
        result = comparison.equivalence(a, b, margin, paired=False, relative=kind == "relative")
        found.append(_claim(f"independent seeds, {name_of(metric)}", model, result, len(a), kind, source))
    return [*found, _neighbourhoods(model, means, len(next(iter(losses.values()))))]


def _neighbourhoods(model: str, means: Sequence[np.ndarray], first: int) -> Claim:
    """L2: do the halves' latents differ more between the halves than within them? One metric is the gate."""
    rows = some_rows(len(means[0]), ROWS)
    sets = [np.asarray(mean[rows], np.float64) for mean in means]
    apart = latents.dissimilarities(sets, scale_free=not MODELS[model].posterior)
    least = comparison.smallest_p(first, len(sets) - first)
    numbers: dict[str, float] = {"runs a half": first, "smallest p possible": least}
    for metric, matrix in apart.items():
        energy, p = comparison.energy_test(matrix, first)
        numbers |= {f"energy, {name_of(metric)}": energy, f"p, {name_of(metric)}": p}
    # The absence of an alarm is no proof: the descriptors carry the claim of equivalence.
    verdict = "different" if numbers[f"p, {name_of(GATE)}"] < ALARM else "no alarm"
    if least >= ALARM:
        verdict = "not decided"
    name = f"independent seeds, latents by the energy test (gate: {name_of(GATE)})"
    return {"claim": name, "model": model, "verdict": verdict, "numbers": numbers}


def read_pilot(path: Path, config: Config, seeds: Sequence[int], data: str) -> dict[str, list[Values]]:
    """Losses and descriptors of an earlier independent comparison, from its summary.json.

    Raises InputError where it is not one, differs in more than its seeds, was made on other data (by their fingerprint,
    which the summaries of earlier versions do not have), or shares a seed.
    """
    summary = read_json(path, "pilot")
    try:
        earlier = summary["models"][config.model]
        before = Config.from_json(earlier["config"])
        used = {seed for of_half in earlier["seeds"].values() for seed in of_half}
        values = _joined(earlier["losses_by_seed"], earlier["latents_of_each_half"])
        check = summary["check"]
        numbers = [value for of_half in values.values() for run in of_half for value in run.values()]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("it holds NaN or infinite numbers")
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


def _joined(*parts: Mapping[str, Sequence[Values]]) -> dict[str, list[Values]]:
    """Each half's dicts per seed, merged seed by seed."""
    return {
        name: [{key: run[key] for run in of_seed for key in run} for of_seed in zip(*(part[name] for part in parts))]
        for name in parts[0]
    }


def failed(claims: Sequence[Claim]) -> list[Claim]:
    """The claims that do not hold."""
    return [claim for claim in claims if claim["verdict"] not in (*HOLDS, "no alarm")]


def _claim(name: str, model: str, result: comparison.Equivalence, seeds: int, unit: str, source: str) -> Claim:
    low, high = result.interval
    return {
        "claim": name,
        "model": model,
        "verdict": result.verdict,
        "margin from": source,
        "numbers": {
            f"difference, {unit}": result.difference,
            "90 % interval, low": low,
            "90 % interval, high": high,
            "margin": result.margin,
            "p": result.p,
            "power": result.power,
            "minimum detectable difference": result.detectable,
            "seeds a half": seeds,
            **({} if result.seeds_needed is None else {"seeds a half for a power of 0.8": result.seeds_needed}),
        },
    }


def name_of(key: str) -> str:
    """A record's key as a person reads it."""
    words = key.removesuffix("_nats").replace("_", " ")
    for plain, proper in {"knn": "k-NN", "kl": "KL", "rsa": "RSA", "cka": "CKA"}.items():
        words = re.sub(rf"\b{plain}\b", proper, words)
    return words
