"""The claims on one seed: the same experiment step by step, and the same latents.

In float64 the verdict is `equal` or `different`. In float32 networks with ReLU part, so what is claimed
there is that the latents keep one structure: `equivalent` or `different`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_common import reference
from vae_common.backend import Halves
from vae_common.comparison.claims import Claim, LockstepClaim, StructureClaim
from vae_common.comparison.over_seeds import ROWS
from vae_common.config import Config
from vae_common.conformance.checks import epoch_checks
from vae_common.conformance.engine.checks import Check, difference
from vae_common.conformance.engine.lockstep import Lockstep
from vae_common.conformance.lockstep import lockstep
from vae_common.conformance.states import TrainingData
from vae_common.contracts import Posterior
from vae_common.metrics import descriptors, similarity
from vae_common.randomness import some_rows

LATENT_TOLERANCE = 1e-10
FLOAT32_LEAST = {"linear_cka": 0.998, "rsa": 0.998, "axis_correlation": 0.998, "mutual_neighbours": 0.75}
FLOAT32_MOST_DISPARITY = 0.003

Drift = dict[str, dict[str, list[float]]]
"""By precision and quantity, how far the halves are apart after each step."""


def claims_in_lockstep(
    halves: Halves, model: str, config: Config, data: TrainingData, steps: int
) -> tuple[list[Claim], Drift]:
    """The claim on float64, the claim on float32 latents, and the drift per step in both for the figure."""
    double, single = _in_precision(config, "float64"), _in_precision(config, "float32")
    exact = lockstep(halves, double, data.images, steps, data.labels)
    rounded = lockstep(halves, single, data.images, steps, data.labels)
    claims = [
        _same_experiment(halves, model, double, exact, data, steps),
        _same_structure(halves, model, single, rounded, data, steps),
    ]
    drift = {
        precision: {name: values.tolist() for name, values in result.differences.items()}
        for precision, result in (("float64", exact), ("float32", rounded))
    }
    return claims, drift


def _in_precision(config: Config, precision: Any) -> Config:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, precision=precision))


def _same_experiment(
    halves: Halves, model: str, config: Config, exact: Lockstep, data: TrainingData, steps: int
) -> LockstepClaim:
    """Losses and weights after every step, latents after the last, and `train_epoch` against the oracle."""
    first, second = _encoded(halves, config, exact.parameters, data)
    gap = max(difference(a, b) for a, b in zip(first, second) if b is not None)
    compared = [*exact.checks(), Check("L1", "latents", f"after {steps} steps", gap, LATENT_TOLERANCE)]
    by_epoch = list(epoch_checks(halves, config, data, steps))
    failed = [check for check in (*compared, *by_epoch) if not check.passed]
    culprit = None
    if exact.first_excess is not None:
        found = exact.culprit
        culprit = "not found from the state before" if found is None else f"{found.tier}: {found.name}"
    elif failed:
        culprit = f"{failed[0].tier}: {failed[0].name}"
    return LockstepClaim(
        model=model,
        verdict="different" if failed else "equal",
        steps=steps,
        largest_difference={check.quantity: check.measured for check in compared},
        share_of_tolerance=max(check.ratio for check in (*compared, *by_epoch)),
        share_of_tolerance_by_train_epoch=max(check.ratio for check in by_epoch),
        first_excess=exact.first_excess,
        culprit=culprit,
        has_oracle=reference.knows(config),
    )


def _same_structure(
    halves: Halves, model: str, config: Config, result: Lockstep, data: TrainingData, steps: int
) -> StructureClaim:
    """In float32, where ReLU networks part, the latents keep one structure all the same."""
    a, b = (descriptors.flat(posterior.mean) for posterior in _encoded(halves, config, result.parameters, data))
    found = similarity.similarities(a, b)
    known = {name: float("nan") if value is None else value for name, value in found.items()}
    kept = all(known[name] >= least for name, least in FLOAT32_LEAST.items())
    kept = kept and known["procrustes_disparity"] <= FLOAT32_MOST_DISPARITY
    apart = abs(descriptors.active_units(a) - descriptors.active_units(b))
    return StructureClaim(model, "equivalent" if kept and not apart else "different", steps, found, apart)


def _encoded(
    halves: Halves, config: Config, weights: Mapping[str, Mapping[str, np.ndarray]], data: TrainingData
) -> list[Posterior]:
    """Where each half's weights put some of the images."""
    rows = some_rows(len(data.images), ROWS)
    labels = None if data.labels is None else data.labels[rows]
    found = []
    for name, half in halves.items():
        device = half.select_device(config.training.device)
        model = half.load_arrays(half.create_model(config), weights[name], config.training.dtype, device)
        found.append(half.encode(model, data.images[rows], labels))
    return found
