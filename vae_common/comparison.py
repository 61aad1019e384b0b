"""The engine of the conformance claims, for tests and users alike.

Everything here is handed the two halves. `tier_checks` runs every tier of tiers.py; `lockstep` trains
both from one seed, compares after each step and says where they part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from vae_common import randomness
from vae_common.checkpoints import STEP
from vae_common.configs import Config
from vae_common.contracts import Terms
from vae_common.tiers import Arrays, Halves, Probe, input_checks, operation_checks, probes, state_checks, weights_of
from vae_common.tolerances import Check, compare_arrays, difference, lockstep_tolerances


def tier_checks(halves: Halves, config: Config, images: np.ndarray, steps: int = 10) -> Iterator[Check]:
    """Every check from T0 to T5, in order; lockstep over that many steps.

    Args:
        halves: two, by name.
        images: uint8 (N, height, width, channels), at least one batch.
    """
    yield from input_checks(halves, config, images)
    yield from operation_checks(halves, config, images)
    for probe in probes(config, images):
        yield from state_checks(halves, config, probe)
    yield from lockstep(halves, config, images, steps).checks()


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


def lockstep(halves: Halves, config: Config, images: np.ndarray, steps: int) -> Lockstep:
    """Trains both halves from the config's seed, step by step, and compares after each.

    Where a tolerance is exceeded the state before that step is injected into both halves, and the tiers
    from T0 up say where they part: the first one that fails is the result's `culprit`.
    """
    a, b = halves
    limits = lockstep_tolerances(config.training.dtype, steps)
    differences = {name: np.zeros(steps) for name in ("total", "reconstruction", "kl", "parameters")}
    trained = {name: _steps(half, config, images, steps) for name, half in halves.items()}
    previous: Arrays = {}
    for step, ((a_terms, a_arrays), (b_terms, b_arrays)) in enumerate(zip(trained[a], trained[b])):
        for name in Terms._fields:
            differences[name][step] = difference(getattr(a_terms, name), getattr(b_terms, name))
        gaps = compare_arrays("T5", "", weights_of(a_arrays), weights_of(b_arrays), 0, config.training.learning_rate)
        differences["parameters"][step] = max(check.measured for check in gaps)
        if any(differences[name][step] > limit[step] for name, limit in limits.items()):
            cut = {name: values[: step + 1] for name, values in differences.items()}
            return Lockstep(config.training.dtype, cut, step + 1, _culprit(halves, config, images, step, previous))
        previous = b_arrays
    return Lockstep(config.training.dtype, differences, None, None)


def _steps(half: ModuleType, config: Config, images: np.ndarray, steps: int) -> Iterator[tuple[Terms, Arrays]]:
    """Each step's mean terms, and the whole state after it."""
    state, placed = half.create_state(config), half.place_images(images, config)
    done, epoch = 0, 0
    while done < steps:
        draws = half.epoch_draws(config, epoch, len(images))
        for step in range(min(len(draws.order), steps - done)):
            thresholds = None if draws.thresholds is None else draws.thresholds[step]
            with half.precision(config.training.dtype):
                batch = half.prepare_images(placed[draws.order[step]], thresholds, draws.noise.dtype)
                noise = draws.noise[step]
            state, terms = half.train_step(state, batch, noise)
            yield Terms(*(half.to_numpy(term) for term in terms)), half.state_to_arrays(state)
        done, epoch = done + len(draws.order), epoch + 1


def _culprit(halves: Halves, config: Config, images: np.ndarray, step: int, previous: Arrays) -> Check | None:
    """The first check that fails, from the state before the step."""
    checks = [*input_checks(halves, config, images), *operation_checks(halves, config, images)]
    if previous:
        per_epoch = randomness.steps_per_epoch(len(images), config.training.batch_size)
        draws = randomness.epoch_draws(config, step // per_epoch, len(images))
        order, noise = draws.order[step % per_epoch], draws.noise[step % per_epoch]
        arrays = {name: a if name == STEP else a.astype(np.float64) for name, a in previous.items()}
        checks += state_checks(halves, config, Probe(f"before step {step + 1}", arrays, images[order], noise))
    return next((check for check in checks if not check.passed), None)
