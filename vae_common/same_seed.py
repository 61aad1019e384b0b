"""The claim that the same seed gives the same experiment, step by step, and L1: the same latents.

In float64 the verdict is "equal" or "different". In float32 networks with ReLU part, so what is claimed
there is that the latents keep one structure: "equivalent" or "different".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from vae_common import comparison, latents
from vae_common.claims import ROWS, Claim
from vae_common.configs import Config
from vae_common.contracts import Posterior
from vae_common.probes import Data
from vae_common.randomness import some_rows
from vae_common.tiers import Halves, epoch_checks
from vae_common.tolerances import Check, difference

LATENT_TOLERANCE = 1e-10
FLOAT32_LEAST = {"linear_cka": 0.998, "rsa": 0.998, "axis_correlation": 0.998, "mutual_neighbours": 0.75}
FLOAT32_MOST_DISPARITY = 0.003


def lockstep(
    halves: Halves, model: str, config: Config, data: Data, steps: int
) -> tuple[list[Claim], dict[str, dict[str, list[float]]]]:
    """The float64 claim, the claim on float32 latents (L1), and the drift per step in both for the figure."""
    found = {}
    for dtype in ("float64", "float32"):
        typed = dataclasses.replace(config, training=dataclasses.replace(config.training, precision=dtype))
        found[dtype] = comparison.lockstep(halves, typed, data.images, steps, data.labels)
    double = dataclasses.replace(config, training=dataclasses.replace(config.training, precision="float64"))
    exact, by_epoch = found["float64"], list(epoch_checks(halves, double, data, steps))
    first, second = _encoded(halves, double, exact.weights, data)
    gap = max(difference(a, b) for a, b in zip(first, second) if b is not None)
    checks = [*exact.checks(), Check("L1", "latents", gap, LATENT_TOLERANCE), *by_epoch]
    numbers = {
        f"largest difference, {check.name.split(' at ')[0]}": check.measured for check in checks[: -len(by_epoch)]
    }
    numbers["largest share of a tolerance, train_epoch against the reference"] = max(c.ratio for c in by_epoch)
    numbers["largest share of a tolerance, all"] = max(c.ratio for c in checks)
    claim: Claim = {
        "claim": f"the same seed gives the same losses, weights and latents, float64, {steps} steps",
        "model": model,
        "verdict": "equal" if all(check.passed for check in checks) else "different",
        "numbers": numbers,
    }
    if exact.first_excess is not None:
        numbers["first excess at step"] = exact.first_excess
        culprit = exact.culprit
        claim["culprit"] = f"{culprit.tier}: {culprit.name}" if culprit else "not found from the state before"
    elif claim["verdict"] == "different":
        claim["culprit"] = next(f"{check.tier}: {check.name}" for check in checks if not check.passed)
    rounded = _float32_latents(halves, model, config, found["float32"], data, steps)
    drift = {
        dtype: {name: values.tolist() for name, values in result.differences.items()} for dtype, result in found.items()
    }
    return [claim, rounded], drift


def _float32_latents(
    halves: Halves, model: str, config: Config, result: comparison.Lockstep, data: Data, steps: int
) -> Claim:
    """L1 in float32, where ReLU networks part: the latents keep one structure all the same."""
    single = dataclasses.replace(config, training=dataclasses.replace(config.training, precision="float32"))
    a, b = (posterior.mean for posterior in _encoded(halves, single, result.weights, data))
    numbers = {name: float("nan") if value is None else value for name, value in latents.compare(a, b).items()}
    kept = all(numbers[name] >= least for name, least in FLOAT32_LEAST.items())
    kept = kept and numbers["procrustes_disparity"] <= FLOAT32_MOST_DISPARITY
    numbers["active units apart"] = abs(latents.active_units(a) - latents.active_units(b))
    return {
        "claim": f"the same seed gives latents of the same structure, float32, {steps} steps",
        "model": model,
        "verdict": "equivalent" if kept and not numbers["active units apart"] else "different",
        "numbers": numbers,
    }


def _encoded(
    halves: Halves, config: Config, weights: Mapping[str, Mapping[str, np.ndarray]], data: Data
) -> list[Posterior]:
    """Where each half's weights put some of the images."""
    device = {name: half.select_device(config.training.device) for name, half in halves.items()}
    models = {
        name: half.load_arrays(half.create_model(config), weights[name], config.training.dtype, device[name])
        for name, half in halves.items()
    }
    rows = some_rows(len(data.images), ROWS)
    images, labels = (None if of is None else of[rows] for of in data)
    return [half.encode(models[name], images, labels) for name, half in halves.items()]
