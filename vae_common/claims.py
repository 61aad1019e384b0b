"""What a comparison claims of the two halves, each with its verdict and its numbers.

    lockstep     the same seed in float64, step by step, and L1, its latents: "equal" or "different"
    paired       S1: the same seeds, shared randomness, losses by TOST
    independent  S2: disjoint seeds, each framework's own randomness, losses and (L3) latent descriptors by TOST;
                 L2: an energy test on the neighbourhoods of all runs' latents

A statistical claim ends as "equivalent", "not shown" or "different".
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vae_common import comparison, latents
from vae_common.configs import Config, InputError
from vae_common.tiers import Halves
from vae_common.tolerances import difference

HOLDS = ("equal", "equivalent")
# Of the means; frozen for S1, where pairing leaves next to no spread.
PAIRED_MARGINS = {"total_nats": 0.001, "reconstruction_nats": 0.001, "kl_nats": 0.02}
# For S2 the margin is this many standard deviations between seeds, measured at the budget in use.
SPREADS_IN_MARGIN = 2.7
ABSOLUTE_MARGINS = {"knn_accuracy": 0.05, "trustworthiness": 0.025}
ALARM = 0.01
LATENT_TOLERANCE = 1e-10
NEIGHBOUR_ROWS = 1000

Claim = dict[str, Any]


@dataclass(frozen=True)
class ClaimOptions:
    """What a user may have checked about the halves."""

    check: Literal["none", "lockstep", "paired", "independent"] = "none"
    """lockstep: the same seed, step by step, in float64; paired: the same seeds, statistically;
    independent: disjoint seeds and native randomness. Exit status 1 where a claim does not hold."""
    lockstep_steps: int = 300
    """Training steps of --check lockstep."""

    def __post_init__(self) -> None:
        if self.lockstep_steps < 1:
            raise InputError(f"lockstep_steps: received {self.lockstep_steps}, expected an integer >= 1")

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


def lockstep(halves: Halves, model: str, config: Config, images: np.ndarray, steps: int) -> tuple[Claim, dict]:
    """The float64 claim, and the drift per step in float64 and float32 for the figure."""
    drift = {}
    for dtype in ("float64", "float32"):
        typed = dataclasses.replace(config, training=dataclasses.replace(config.training, dtype=dtype))
        result = comparison.lockstep(halves, typed, images, steps)
        drift[dtype] = {name: values.tolist() for name, values in result.differences.items()}
        if dtype == "float64":
            exact = result
    gap = _latent_difference(halves, config, exact.weights, images[:NEIGHBOUR_ROWS])
    worst = {check.name.split(" at ")[0]: check.measured for check in exact.checks()}
    claim: Claim = {
        "claim": f"the same seed gives the same losses and weights, float64, {steps} steps",
        "model": model,
        "verdict": "equal" if exact.first_excess is None and gap <= LATENT_TOLERANCE else "different",
        "numbers": {f"largest difference, {name}": value for name, value in worst.items()}
        | {"largest difference, latents": gap},
    }
    if exact.first_excess is not None:
        found = exact.culprit
        claim["numbers"]["first excess at step"] = exact.first_excess
        claim["culprit"] = f"{found.tier}: {found.name}" if found else "not found from the state before"
    return claim, drift


def _latent_difference(
    halves: Halves, config: Config, weights: Mapping[str, Mapping[str, np.ndarray]], images: np.ndarray
) -> float:
    """L1: how far apart the halves put the same images after the last step, mean and log_std."""
    encoded = []
    for name, half in halves.items():
        device = half.select_device(config.training.device)
        double = dataclasses.replace(config, training=dataclasses.replace(config.training, dtype="float64"))
        model = half.load_arrays(half.create_model(double), weights[name], "float64", device)
        encoded.append(half.encode(model, images))
    return max(difference(a, b) for a, b in zip(*encoded) if b is not None)


def paired(model: str, losses: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Claim]:
    """S1: one claim per term; `losses` holds each half's test terms, the same seeds in the same order."""
    first, second = losses.values()
    claims = []
    for term, margin in PAIRED_MARGINS.items():
        a, b = [run[term] for run in first], [run[term] for run in second]
        if any(a) or any(b):
            result = comparison.equivalence(a, b, margin, paired=True)
            claims.append(_claim(f"paired seeds, {_name(term)}", model, result, len(a), "relative"))
    return claims


def independent(
    model: str,
    losses: Mapping[str, Sequence[Mapping[str, float]]],
    described: Mapping[str, Sequence[Mapping[str, float]]],
    means: Sequence[np.ndarray],
) -> list[Claim]:
    """S2, L2 and L3.

    Args:
        losses: each half's test terms, one dict per seed.
        described: each half's latent descriptors, one dict per seed.
        means: latents (N, latent_dim) of the same images, the first half's runs before the second's.
    """
    first, second = losses.values()
    claims = []
    for term in PAIRED_MARGINS:
        a, b = [run[term] for run in first], [run[term] for run in second]
        if any(a) or any(b):
            # The smaller of the two: a fault that inflates one half's spread must not widen the margin.
            spread = min(statistics.stdev(v) / abs(statistics.fmean(a)) for v in (a, b))
            result = comparison.equivalence(a, b, SPREADS_IN_MARGIN * spread, paired=False)
            claims.append(_claim(f"independent seeds, {_name(term)}", model, result, len(a), "relative"))
    for metric, margin in ABSOLUTE_MARGINS.items():
        a, b = ([run[metric] for run in of if metric in run] for of in described.values())
        if len(a) > 1 and len(b) > 1:
            result = comparison.equivalence(a, b, margin, paired=False, relative=False)
            claims.append(_claim(f"independent seeds, {_name(metric)}", model, result, len(a), "absolute"))
    near = [latents.nearest(np.asarray(mean[:NEIGHBOUR_ROWS], np.float64)) for mean in means]
    distance = np.zeros((len(near), len(near)))
    for i in range(len(near)):
        for j in range(i):
            distance[i, j] = distance[j, i] = 1 - latents.shared_neighbours(near[i], near[j])
    energy, p = comparison.energy_test(distance, len(first))
    claims.append(
        {
            "claim": "independent seeds, neighbourhoods of the latents (energy test)",
            "model": model,
            # The absence of an alarm is no proof: the descriptors above carry the claim of equivalence.
            "verdict": "different" if p < ALARM else "no alarm",
            "numbers": {"energy": energy, "p": p, "runs a half": len(first)},
        }
    )
    return claims


def failed(claims: Sequence[Claim]) -> list[Claim]:
    """The claims that do not hold."""
    return [claim for claim in claims if claim["verdict"] not in (*HOLDS, "no alarm")]


def _claim(name: str, model: str, result: comparison.Equivalence, seeds: int, unit: str) -> Claim:
    low, high = result.interval
    return {
        "claim": name,
        "model": model,
        "verdict": result.verdict,
        "numbers": {
            f"difference, {unit}": result.difference,
            "90 % interval, low": low,
            "90 % interval, high": high,
            "margin": result.margin,
            "p": result.p,
            "power": result.power,
            "seeds a half": seeds,
        },
    }


def _name(key: str) -> str:
    words = key.removesuffix("_nats").replace("_", " ").replace("knn", "k-NN")
    return "KL" if words == "kl" else words
