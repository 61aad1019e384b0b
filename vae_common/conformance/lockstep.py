"""Every tier's checks, and both halves trained in lockstep: for tests and users alike, who hand in the halves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vae_common import randomness
from vae_common.backend import Half, Halves
from vae_common.config import Config
from vae_common.conformance.checks import (
    Moving,
    capability_checks,
    epoch_checks,
    inference_checks,
    input_checks,
    state_checks,
    use_checks,
)
from vae_common.conformance.engine.checks import Check
from vae_common.conformance.engine.lockstep import Lockstep, Step, in_lockstep
from vae_common.conformance.operations import operation_checks
from vae_common.conformance.oracle import oracle_for
from vae_common.conformance.states import InjectedState, TrainingData, injected_states, training_data
from vae_common.conformance.tolerances import lockstep_tolerances
from vae_common.progress import counted
from vae_common.runs.checkpoints import STEP, Arrays, weights_of


def tier_checks(
    halves: Halves, config: Config, images: np.ndarray, steps: int = 10, labels: np.ndarray | None = None
) -> Iterator[Check]:
    """Every check from T0 to T5, in order; lockstep over that many steps.

    Args:
        halves: two, by name.
        images: uint8 (N, height, width, channels), at least one batch.
        labels: integers (N,); made up where there are none and the model is given classes.
    """
    data, oracle = training_data(config, images, labels), oracle_for(halves, config)
    moving: Moving = {}
    yield from input_checks(halves, config, data)
    yield from operation_checks(halves, config)
    for state in injected_states(oracle, config, data):
        yield from state_checks(halves, config, state, moving)
        if state.label == "warm":
            yield from inference_checks(halves, config, state)
            yield from capability_checks(halves, config, state)
    yield from use_checks(moving, config, oracle.shapes)
    yield from lockstep(halves, config, images, steps, labels).checks()
    yield from epoch_checks(halves, config, data, steps)


def lockstep(
    halves: Halves, config: Config, images: np.ndarray, steps: int, labels: np.ndarray | None = None
) -> Lockstep:
    """Trains both halves from the config's seed, step by step, and compares after each.

    Where a tolerance is exceeded the state before that step is injected into both halves, and the tiers
    from T0 up say where they part: the first check that fails is the result's `culprit`.
    """
    data = training_data(config, images, labels)

    def locate(step: int, before: Arrays | None) -> Check | None:
        return _culprit(halves, config, data, step, before)

    (first, half), (second, other) = halves.items()
    trained = counted(_steps(half, config, data, steps), f"lockstep, {config.training.dtype}", steps, "step")
    programs = {first: trained, second: _steps(other, config, data, steps)}
    limits = lockstep_tolerances(config, steps)
    return in_lockstep(programs, limits, config.training.learning_rate, locate, "T5")


def _steps(half: Half, config: Config, data: TrainingData, steps: int) -> Iterator[Step]:
    """What each step gives: its mean terms, and the whole state after it."""
    state, placed = half.create_state(config, data.images), half.place_images(data.images, config)
    labels = None if data.labels is None else half.place_labels(data.labels, config)
    done, epoch = 0, 0
    while done < steps:
        draws = half.epoch_draws(config, epoch, len(data.images))
        for step in range(min(len(draws.order), steps - done)):
            draw = half.step_draws(config, draws, step)
            with half.precision(config.training.dtype):
                batch = half.prepare_images(placed[draw.order], draw.thresholds, draw.noise.dtype)
            own = None if labels is None else labels[draw.order]
            state, terms = half.train_step(state, batch, draw.noise, own)
            scalars = {name: half.to_numpy(term) for name, term in terms.named().items()}
            arrays = half.state_to_arrays(state)
            yield Step(scalars, weights_of(arrays), arrays)
        done, epoch = done + len(draws.order), epoch + 1


def _culprit(halves: Halves, config: Config, data: TrainingData, step: int, before: Arrays | None) -> Check | None:
    """What fails first, from the state before the step: the half that the reference contradicts and the term itself,
    before what the two halves are apart and what is made of the term."""
    checks = [*input_checks(halves, config, data), *operation_checks(halves, config)]
    state = next(injected_states(oracle_for(halves, config), config, data))  # the state before the first step
    if before is not None:
        per_epoch = randomness.steps_per_epoch(len(data.images), config.training.batch_size)
        draws = randomness.epoch_draws(config, step // per_epoch, len(data.images))
        order, noise = draws.order[step % per_epoch], draws.noise[step % per_epoch]
        arrays = {name: a if name == STEP else a.astype(np.float64) for name, a in before.items()}
        labels = None if data.labels is None else data.labels[order]
        state = InjectedState(f"before step {step + 1}", arrays, data.images[order], noise, labels)
    checks += state_checks(halves, config, state)
    failed = [check for check in checks if not check.passed]
    first = [check for check in failed if check.tier == failed[0].tier]
    return min(first, key=_blame, default=None)


def _blame(check: Check) -> tuple[bool, bool]:
    """Smaller for what says more."""
    return "against reference" not in check.where, check.quantity.startswith(("total", "objective"))
