"""The tiers of checks between the halves and the reference, from a name's spelling to a whole step.

    T0  names, shapes, dtypes, initial weights; order, noise and binarization of an epoch: exact
    T1  preparing images, activations, loss terms, saturated logits too
    T2  forward pass: loss terms, mean, log_std, latents, logits; inference on more than one batch
    T3  gradient of each tensor
    T4a Adam from identical gradients and moments, t = 1, 2, 10, 1000, 100000
    T4b one whole step
    T5  many steps from the same seed: in lockstep (see lockstep.py), and by `train_epoch`

T1 to T4 hold each half against `reference` too, so a formula that is wrong in both is caught, and a
majority says which half is wrong. They start from injected equal states: cold (initial weights), warm
(after 20 steps, because a cold start hides faults) and extreme (posteriors and logits far out, where a
clamp, a floor or a clip would show).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import TypeVar

import numpy as np

from vae_common import randomness, reference
from vae_common.backend import Half, Halves, name_of
from vae_common.config import Config
from vae_common.config.registry import size
from vae_common.conformance.engine.checks import (
    Check,
    array_checks,
    chaotic_update_checks,
    difference,
    rounded_update_checks,
    update_checks,
)
from vae_common.conformance.oracle import inject, oracle_for
from vae_common.conformance.outputs import (
    ADAM_STEPS,
    Computed,
    half_adam,
    half_inference,
    half_outputs,
    half_step,
    kl_depends_on_noise,
    reference_adam,
    reference_inference,
    reference_outputs,
    reference_step,
)
from vae_common.conformance.states import InjectedState, TrainingData
from vae_common.conformance.tolerances import TOLERANCES, lockstep_tolerances
from vae_common.contracts import map_arrays
from vae_common.reference import training as reference_training

_T = TypeVar("_T")
TIERS = ("T0", "T1", "T2", "T3", "T4a", "T4b", "T5")


def input_checks(halves: Halves, config: Config, data: TrainingData) -> Iterator[Check]:
    """T0: the models' shapes and dtypes, their initial weights, and the draws of two epochs."""
    dtype, oracle, count = config.training.dtype, oracle_for(halves, config), len(data.images)
    weights = randomness.initial_weights(oracle.shapes, config.seed, config.network.initializer, oracle.starts)
    for name, half in halves.items():
        model, against = half.create_model(config), f"{name} against {oracle.name}"
        found = {k: np.array(v, np.int64) for k, v in half.parameter_shapes(model).items()}
        expected = {k: np.array(v, np.int64) for k, v in oracle.shapes.items()}
        yield from array_checks("T0", f"shape: {against}", found, expected, 0)
        arrays = half.to_arrays(model)
        wrong = float(sum(array.dtype != dtype for array in arrays.values()) or half.parameter_dtype(model) != dtype)
        yield Check("T0", "dtype", name, wrong, 0)
        exact = {k: w.astype(dtype) for k, w in weights.items()}
        yield from array_checks("T0", f"initial: {against}", arrays, exact, 0)
        for epoch in (0, 1):
            expected_draws = randomness.epoch_draws(config, epoch, count)
            expected_draws = expected_draws._replace(noise=expected_draws.noise.astype(dtype))
            draws = half.epoch_draws(config, epoch, count)
            steps = [half.step_draws(config, draws, step) for step in range(len(expected_draws.order))]
            # Of counters the bits are the same, and what is made of them to last places.
            exact_noise = 0.0 if config.training.randomness == "shared" else 4 * float(np.finfo(dtype).eps)
            for kind, expected_draw, *made in zip(expected_draws._fields, expected_draws, *steps):
                if expected_draw is not None and expected_draw.size:
                    there = all(of_step is not None for of_step in made)
                    found_draw = np.stack([half.to_numpy(of_step) for of_step in made]) if there else None
                    gap = np.inf if found_draw is None else difference(found_draw, expected_draw)
                    limit = exact_noise if kind == "noise" else 0
                    yield Check("T0", kind, f"epoch {epoch}: {against}", gap, limit)


Moving = dict[str, set[str]]
"""By half, the parameters that had a gradient in one of the states."""


def state_checks(
    halves: Halves, config: Config, injected: InjectedState, moving: Moving | None = None
) -> Iterator[Check]:
    """T2 to T4b from one injected state: every half against the reference, and the halves themselves.

    What has a gradient is added to `moving`.
    """
    yield from pass_checks(halves, config, injected, moving)
    if injected.updates:
        yield from adam_checks(halves, config, injected)
        yield from step_checks(halves, config, injected)


def pass_checks(
    halves: Halves, config: Config, injected: InjectedState, moving: Moving | None = None
) -> Iterator[Check]:
    """T2 and T3: a forward and a backward pass; what has a gradient is added to `moving`."""
    limits = TOLERANCES[config.training.dtype]

    def of_half(config: Config, injected: InjectedState, half: Half) -> Computed:
        found = half_outputs(config, injected, half)
        if moving is not None:
            moving.setdefault(name_of(half), set()).update(n for n, g in found.gradient.items() if g.any())
        return found

    for x, y, where in _pairs(halves, config, injected, of_half, reference_outputs):
        yield from array_checks("T0", f"injected, {where}", x.injected, y.injected, 0)
        for kind in ("loss", "kl", "tensor"):
            yield from array_checks("T2", where, getattr(x, kind), getattr(y, kind), limits[kind])
        yield from array_checks("T2", where, x.evaluation, y.evaluation, limits["tensor"])
        yield from array_checks("T3", where, x.gradient, y.gradient, limits["gradient"])


def adam_checks(halves: Halves, config: Config, injected: InjectedState) -> Iterator[Check]:
    """T4a: Adam from made-up gradients and moments."""
    rate, limits = config.training.learning_rate, TOLERANCES[config.training.dtype]
    compared = array_checks if config.training.dtype == "float64" else rounded_update_checks
    for one, other, where in _pairs(halves, config, injected, half_adam, reference_adam):
        for t in ADAM_STEPS:
            at = f"t={t}, {where}"
            yield from compared("T4a", at, one.weights[t], other.weights[t], limits["adam"], rate)
            yield from array_checks("T4a", at, one.moments[t], other.moments[t], limits["tensor"])


def step_checks(halves: Halves, config: Config, injected: InjectedState) -> Iterator[Check]:
    """T4b: one whole step."""
    dtype, rate = config.training.dtype, config.training.learning_rate
    limits = TOLERANCES[dtype]
    for one, other, where in _pairs(halves, config, injected, half_step, reference_step):
        yield from array_checks("T4b", where, one.terms, other.terms, limits["kl"])
        if config.optimizer.average:
            yield from array_checks("T4b", f"average, {where}", one.average, other.average, limits["tensor"])
        if dtype == "float64":
            yield from array_checks("T4b", where, one.weights, other.weights, limits["step"], rate)
        else:
            before = injected.weights
            yield from chaotic_update_checks("T4b", where, one.weights, other.weights, before, limits["step"], rate)


def use_checks(moving: Moving, config: Config, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Check]:
    """T3: every parameter had a gradient in one state at least, unless it is declared to have none; one that never has
    does nothing."""
    for name, moved in moving.items():
        for parameter in shapes:
            expected = not parameter.endswith(config.entry.without_gradient)
            dead = 0.0 if (parameter in moved) == expected else np.inf
            yield Check("T3", f"{parameter} is used", f"its gradient is not zero at every state: {name}", dead, 0)


def capability_checks(halves: Halves, config: Config, injected: InjectedState) -> Iterator[Check]:
    """T2: the forward pass has what is declared where the model is registered: its layers, their prior, its codes."""
    declared, where = config.entry, "as it is declared"
    shapes = [(size([shape]),) for shape in config.layer_shapes]
    for name, half in halves.items():
        model = inject(half, config, injected.arrays).model
        outputs = half.forward(model, injected.images, injected.noise, injected.labels)
        found = [layer.latents.shape[-1:] for layer in outputs.layers]
        yield Check("T2", f"layers of {found}", f"{where}, {shapes}: {name}", 0.0 if found == shapes else np.inf, 0)
        has_codes = (outputs.codes is not None) == declared.quantizes
        yield Check("T2", "codes", f"{where}: {name}", 0.0 if has_codes else np.inf, 0)
        if outputs.layers:
            decoded = outputs.layers[0]
            standard = -((decoded.latents**2).sum(-1) + decoded.latents.shape[-1] * np.log(2 * np.pi)) / 2
            apart = difference(decoded.prior, standard) > TOLERANCES[config.training.dtype]["tensor"]
            wrong = apart == declared.standard_prior
            kind = "a standard-normal prior" if declared.standard_prior else "a prior of its own"
            yield Check("T2", f"{kind} of what is decoded", f"{where}: {name}", np.inf if wrong else 0.0, 0)
        if len(shapes) == 1 and config.loss.kl == "gaussian":  # of several layers it depends on what those above drew
            estimated = kl_depends_on_noise(half, config, injected)
            kind = "a KL that is exact" if declared.exact_kl else "a KL that is estimated"
            yield Check("T2", kind, f"{where}: {name}", np.inf if estimated == declared.exact_kl else 0.0, 0)


def inference_checks(halves: Halves, config: Config, injected: InjectedState) -> Iterator[Check]:
    """T2: what users call, on more images than one batch of it, each half against the reference."""
    tolerance = TOLERANCES[config.training.dtype]["tensor"]
    found = {name: half_inference(half, config, injected) for name, half in halves.items()}
    if reference.knows(config):
        count = next(iter(halves.values())).INFERENCE_BATCH + len(injected.images)
        found["reference"] = reference_inference(config, injected, count)
    *others, last = found
    for name in others:
        yield from array_checks("T2", f"inference: {name} against {last}", found[name], found[last], tolerance)


def epoch_checks(halves: Halves, config: Config, data: TrainingData, steps: int) -> Iterator[Check]:
    """T5: `train_epoch` over whole epochs, at least that many steps, each half against the reference."""
    images, labels = data
    epochs = -(-steps // randomness.steps_per_epoch(len(images), config.training.batch_size))
    oracle = oracle_for(halves, config)
    initial = reference_training.initial(config, oracle.shapes, oracle.starts, images)[0]
    expected, weights = reference_training.train(
        config, oracle.shapes, oracle.starts, images, epochs, labels, oracle.terms_and_gradients
    )
    limits = lockstep_tolerances(config, len(expected.total))
    for name, half in halves.items():
        where = f"{len(expected.total)} steps by train_epoch: {name} against {oracle.name}"
        state, placed, taken = half.create_state(config, images), half.place_images(images, config), []
        own = None if labels is None else half.place_labels(labels, config)
        for epoch in range(epochs):
            state, terms = half.train_epoch(state, placed, half.epoch_draws(config, epoch, len(images)), own)
            taken.append(map_arrays(half.to_numpy, terms))
        steps_taken = map_arrays(lambda *each: np.concatenate(each), *taken).named()
        for term, by_hand in expected.named().items():
            apart = [difference(a, b) for a, b in zip(steps_taken[term], by_hand)]
            worst = int(np.argmax(apart / limits[term]))
            yield Check("T5", term, where, apart[worst], float(limits[term][worst]), worst + 1)
        if config.training.dtype == "float64":
            found, most = half.to_arrays(state.model), TOLERANCES["float64"]["epoch_update"]
            yield from update_checks("T5", where, found, weights, initial, most)


def _pairs(
    halves: Halves,
    config: Config,
    injected: InjectedState,
    of_half: Callable[[Config, InjectedState, Half], _T],
    of_reference: Callable[[Config, InjectedState], _T],
) -> Iterator[tuple[_T, _T, str]]:
    """Every two of the halves and the reference, if it knows the model: their results, and a label."""
    results = {name: of_half(config, injected, half) for name, half in halves.items()}
    if reference.knows(config):
        results["reference"] = of_reference(config, injected)
    for a, b in combinations(results, 2):
        yield results[a], results[b], f"{injected.label}: {a} against {b}"
