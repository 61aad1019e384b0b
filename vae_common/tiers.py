"""The tiers of checks between the halves and the reference, from a name's spelling to a whole step.

    T0  names, shapes, dtypes, initial weights; order, noise and binarization of an epoch: exact
    T1  preparing images, activations, loss terms, saturated logits too
    T2  forward pass: loss terms, mean, log_std, latents, logits; inference on more than one batch
    T3  gradient of each tensor
    T4a Adam from identical gradients and moments, t = 1, 2, 10, 1000, 100000
    T4b one whole step
    T5  many steps from the same seed: in lockstep (see comparison.py), and by `train_epoch`

T1 to T4 hold each half against `reference` too, so a formula that is wrong in both is caught, and a
majority says which half is wrong. They start from injected equal states: cold (initial weights), warm
(after 20 steps, because a cold start hides faults) and extreme (posteriors and logits far out, where a
clamp, a floor or a clip would show).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import combinations
from types import ModuleType
from typing import Any

import numpy as np

from vae_common import randomness, reference
from vae_common.checkpoints import FIRST, SECOND, STEP, Arrays, moments_of, part_of, weights_of
from vae_common.configs import Config
from vae_common.contracts import Outputs, Posterior, Terms
from vae_common.probes import Probe, adam_probe
from vae_common.tolerances import (
    TOLERANCES,
    Check,
    chaotic_updates,
    compare_arrays,
    difference,
    lockstep_tolerances,
    rounded_updates,
    update_checks,
)

Halves = Mapping[str, ModuleType]
Results = dict[str, Any]
"""By kind of quantity, arrays by name."""

TIERS = ("T0", "T1", "T2", "T3", "T4a", "T4b", "T5")
ADAM_STEPS = (1, 2, 10, 1000, 100_000)


def input_checks(halves: Halves, config: Config, images: np.ndarray) -> Iterator[Check]:
    """T0: the models' shapes and dtypes, their initial weights, and the draws of two epochs."""
    dtype, shapes = config.training.dtype, reference.shapes(config)
    weights = randomness.initial_weights(shapes, config.seed)
    for name, half in halves.items():
        model = half.create_model(config)
        found = {k: np.array(v, np.int64) for k, v in half.parameter_shapes(model).items()}
        expected = {k: np.array(v, np.int64) for k, v in shapes.items()}
        yield from compare_arrays("T0", f"shape: {name} against reference", found, expected, 0)
        arrays = half.to_arrays(model)
        wrong = float(sum(array.dtype != dtype for array in arrays.values()) or half.parameter_dtype(model) != dtype)
        yield Check("T0", f"dtype: {name}", wrong, 0)
        exact = {k: w.astype(dtype) for k, w in weights.items()}
        yield from compare_arrays("T0", f"initial: {name} against reference", arrays, exact, 0)
        for epoch in (0, 1):
            expected_draws = randomness.epoch_draws(config, epoch, len(images))
            expected_draws = expected_draws._replace(noise=expected_draws.noise.astype(dtype))
            draws = half.epoch_draws(config, epoch, len(images))
            for kind, a, b in zip(draws._fields, draws, expected_draws):
                if b is not None and b.size:
                    where = f"{kind} of epoch {epoch}: {name} against reference"
                    yield Check("T0", where, np.inf if a is None else difference(half.to_numpy(a), b), 0)


def operation_checks(halves: Halves, config: Config, images: np.ndarray) -> Iterator[Check]:
    """T1: preparing images, the activation, and the loss terms on random and on saturated logits."""
    dtype = config.training.dtype
    tolerance = TOLERANCES[dtype]["operation"]
    draw = np.random.default_rng(0)
    every_value = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    near = every_value.astype(int) + draw.integers(-1, 2, every_value.shape)  # equality has to count as below
    thresholds = near.clip(0, 254).astype(np.uint8)
    x = np.concatenate([draw.normal(size=400), np.linspace(-40, 40, 321), [-100, 100]]).astype(dtype)
    shape = (8, 3, 2, 1)
    logits = np.stack([draw.normal(size=shape) * 3, *(np.full(shape, s) for s in (-500.0, 500.0))]).astype(dtype)
    targets = np.stack([draw.random(shape), draw.random(shape) > 0.5, draw.random(shape)]).astype(dtype)
    # A case each, so that what is large does not hide what is small.
    means = np.stack([draw.normal(size=(8, 5)) * scale for scale in (1, 0, 30)]).astype(dtype)
    near_one, small, large = draw.normal(size=(8, 5)), np.linspace(-14, -1, 40), np.linspace(1, 8, 40)
    log_stds = np.stack([near_one, small.reshape(8, 5), large.reshape(8, 5)]).astype(dtype)
    posteriors = [Posterior(mean, log_std) for mean, log_std in zip(means, log_stds)]
    for name, half in halves.items():

        def put(array: np.ndarray, half: ModuleType = half) -> Any:
            return half.to_device(array, half.select_device(config.training.device))

        with half.precision(dtype):
            zero_like = put(x[:1])
            prepared = half.prepare_images(put(every_value), None, zero_like.dtype)
            compared = half.prepare_images(put(every_value), put(thresholds), zero_like.dtype)
            activated = half.models.networks.ACTIVATIONS[config.network.activation](put(x))
            found = {"images": prepared, "binarized": compared, "activation": activated}
            loss = config.loss
            for case, (logit, target, posterior) in enumerate(zip(logits, targets, posteriors)):
                outputs = Outputs(put(logit), Posterior(*map(put, posterior)), None)
                for term, value in half.loss_terms(loss, outputs, put(target))._asdict().items():
                    found[f"{term} {case}"] = value
        expected = {
            "images": every_value / 255,
            "binarized": (every_value > thresholds).astype(np.float64),
            "activation": reference._activate(config.network.activation, x.astype(np.float64))[0],
        }
        for case, (logit, target, posterior) in enumerate(zip(logits.astype(np.float64), targets, posteriors)):
            outputs = Outputs(logit, Posterior(*(a.astype(np.float64) for a in posterior)), None)
            for term, value in reference.loss_terms(loss, outputs, target)._asdict().items():
                expected[f"{term} {case}"] = value
        arrays = {key: half.to_numpy(value) for key, value in found.items()}
        yield from compare_arrays("T1", f"{name} against reference", arrays, expected, tolerance)


def state_checks(halves: Halves, config: Config, probe: Probe) -> Iterator[Check]:
    """T2 to T4b from one injected state: every half against the reference, and the halves themselves."""
    dtype, rate = config.training.dtype, config.training.learning_rate
    limits = TOLERANCES[dtype]
    for x, y, where in _pairs(halves, probe, partial(_half_pass, config, probe), _reference_pass(config, probe)):
        yield from compare_arrays("T0", f"injected, {where}", x["injected"], y["injected"], 0)
        for kind in ("loss", "kl", "tensor"):
            yield from compare_arrays("T2", where, x[kind], y[kind], limits[kind])
        yield from compare_arrays("T2", where, x["evaluation"], y["evaluation"], limits["tensor"])
        yield from compare_arrays("T3", where, x["gradient"], y["gradient"], limits["gradient"])
    if not probe.updates:
        return
    for x, y, where in _pairs(halves, probe, partial(_half_updates, config, probe), _reference_updates(config, probe)):
        for t in ADAM_STEPS:
            at = f"t={t}, {where}"
            if dtype == "float64":
                yield from compare_arrays("T4a", at, x[f"adam {t}"], y[f"adam {t}"], limits["adam"], rate)
            else:
                yield from rounded_updates("T4a", at, x[f"adam {t}"], y[f"adam {t}"], rate)
            yield from compare_arrays("T4a", at, x[f"moments {t}"], y[f"moments {t}"], limits["tensor"])
        yield from compare_arrays("T4b", where, x["terms"], y["terms"], limits["kl"])
        if dtype == "float64":
            yield from compare_arrays("T4b", where, x["step"], y["step"], limits["step"], rate)
        else:
            yield from chaotic_updates("T4b", where, x["step"], y["step"], probe.weights, limits["step"], rate)


def inference_checks(halves: Halves, config: Config, probe: Probe) -> Iterator[Check]:
    """T2: what users call, on more images than one batch of it, each half against the reference."""
    weights, tolerance = probe.weights, TOLERANCES[config.training.dtype]["tensor"]
    for name, half in halves.items():
        model = _inject(half, config, probe.arrays).model
        count = half.inference.BATCH + 7
        images = np.resize(probe.images, (count, *config.image_shape))
        latents = randomness.prior_samples(1, count, config.network.latent_dim)
        mean, log_std = half.encode(model, images)
        found = {
            "encoded mean": mean,
            "encoded log_std": log_std,
            "decoded": half.decode(model, latents),
            "reconstructed": half.reconstruct(model, images),
            "sampled": half.sample(model, 5, seed=1),
            "interpolated": half.interpolate(model, images[0], images[1], 4),
            **half.evaluate(model, images, config)._asdict(),
        }
        noise = randomness.evaluation_noise(count, config.noise_dim)
        outputs = reference.forward(config, weights, images / 255, noise)
        (start, end), fractions = outputs.posterior.mean[:2], np.linspace(0, 1, 4)[:, None]
        expected = {
            "encoded mean": outputs.posterior.mean,
            "encoded log_std": outputs.posterior.log_std,
            "decoded": reference.decode(config, weights, latents),
            "reconstructed": reference.decode(config, weights, outputs.posterior.mean),
            "sampled": reference.decode(config, weights, latents[:5]),
            "interpolated": reference.decode(config, weights, start + fractions * (end - start)),
            **reference.loss_terms(config.loss, outputs, images / 255)._asdict(),
        }
        if log_std is None:
            del found["encoded log_std"], expected["encoded log_std"]
        yield from compare_arrays("T2", f"{count} images: {name} against reference", found, expected, tolerance)


def epoch_checks(halves: Halves, config: Config, images: np.ndarray, steps: int) -> Iterator[Check]:
    """T5: `train_epoch` over whole epochs, at least that many steps, each half against the reference."""
    epochs = -(-steps // randomness.steps_per_epoch(len(images), config.training.batch_size))
    initial = randomness.initial_weights(reference.shapes(config), config.seed)
    expected, weights = reference.train(config, images, epochs)
    limits = lockstep_tolerances(config.training.dtype, len(expected.total))
    for name, half in halves.items():
        where = f"of {len(expected.total)} steps by train_epoch: {name} against reference"
        state, placed, taken = half.create_state(config), half.place_images(images, config), []
        for epoch in range(epochs):
            state, terms = half.train_epoch(state, placed, half.epoch_draws(config, epoch, len(images)))
            taken.append([half.to_numpy(term) for term in terms])
        for term, found, by_hand in zip(Terms._fields, np.concatenate(taken, axis=1), expected):
            apart = [difference(a, b) for a, b in zip(found, by_hand)]
            worst = int(np.argmax(apart / limits[term]))
            yield Check("T5", f"{term} at step {worst + 1} {where}", apart[worst], float(limits[term][worst]))
        if config.training.dtype == "float64":
            found, most = half.to_arrays(state.model), TOLERANCES["float64"]["epoch_update"]
            yield from update_checks("T5", f"after {where}", found, weights, initial, most)


def _pairs(
    halves: Halves, probe: Probe, of_half: Callable[[ModuleType], Results], of_reference: Results
) -> Iterator[tuple[Results, Results, str]]:
    """Every two of the halves and the reference: their results, and a label."""
    results = {name: of_half(half) for name, half in halves.items()} | {"reference": of_reference}
    for a, b in combinations(results, 2):
        yield results[a], results[b], f"{probe.label}: {a} against {b}"


def _half_pass(config: Config, probe: Probe, half: ModuleType) -> Results:
    """What one half makes of a probe in a forward and a backward pass."""
    state, (images, noise) = _inject(half, config, probe.arrays), _batch(half, config, probe)
    outputs = half.forward(state.model, probe.images, probe.noise)
    evaluated = half.evaluate(state.model, probe.images, config)
    gradients, terms = half.gradients(state, images, noise)
    means = {name: half.to_numpy(term) for name, term in terms._asdict().items()}
    return _by_kind(outputs, means, evaluated, gradients) | {"injected": half.state_to_arrays(state)}


def _reference_pass(config: Config, probe: Probe) -> Results:
    images, weights = probe.images / 255, probe.weights
    outputs = reference.forward(config, weights, images, probe.noise)
    means = {name: term.mean() for name, term in reference.loss_terms(config.loss, outputs, images)._asdict().items()}
    draws = randomness.evaluation_noise(len(images), config.noise_dim)
    evaluated = reference.loss_terms(config.loss, reference.forward(config, weights, images, draws), images)
    gradients = reference.gradients(config, weights, images, probe.noise)
    return _by_kind(outputs, means, evaluated, gradients) | {"injected": probe.arrays}


def _half_updates(config: Config, probe: Probe, half: ModuleType) -> Results:
    """Adam's updates from made-up gradients, and one whole step from the probe."""
    results: dict[str, Mapping[str, Any]] = {}
    for t in ADAM_STEPS:
        start, gradient = adam_probe(probe.weights, t)
        typed = {name: g.astype(config.training.dtype) for name, g in gradient.items()}
        arrays = half.state_to_arrays(half.apply_gradients(_inject(half, config, start), typed))
        results |= {f"adam {t}": weights_of(arrays), f"moments {t}": moments_of(arrays)}
    after, terms = half.train_step(_inject(half, config, probe.arrays), *_batch(half, config, probe))
    means = {name: half.to_numpy(term) for name, term in terms._asdict().items()}
    return results | {"step": half.to_arrays(after.model), "terms": means}


def _reference_updates(config: Config, probe: Probe) -> Results:
    weights, rate = probe.weights, config.training.learning_rate
    results: dict[str, Any] = {}
    for t in ADAM_STEPS:
        start, gradient = adam_probe(weights, t)
        updated = reference.adam(weights, gradient, part_of(start, FIRST), part_of(start, SECOND), t, rate)
        moments = {FIRST + k: v for k, v in updated[1].items()} | {SECOND + k: v for k, v in updated[2].items()}
        results |= {f"adam {t}": updated[0], f"moments {t}": moments | {STEP: np.array(t, np.int64)}}
    passed, step = _reference_pass(config, probe), int(probe.arrays[STEP]) + 1
    first, second = part_of(probe.arrays, FIRST), part_of(probe.arrays, SECOND)
    stepped = reference.adam(weights, passed["gradient"], first, second, step, rate)[0]
    return results | {"step": stepped, "terms": passed["loss"] | passed["kl"]}


def _inject(half: ModuleType, config: Config, arrays: Arrays) -> Any:
    """A half's training state with these canonical arrays, in the config's dtype."""
    typed = {name: a if name == STEP else a.astype(config.training.dtype) for name, a in arrays.items()}
    return half.state_from_arrays(config, typed)


def _batch(half: ModuleType, config: Config, probe: Probe) -> tuple[Any, Any]:
    """The probe's images and noise as `train_step` takes them."""
    device = half.select_device(config.training.device)
    with half.precision(config.training.dtype):
        noise = half.to_device(probe.noise.astype(config.training.dtype), device)
        return half.prepare_images(half.to_device(probe.images, device), None, noise.dtype), noise


def _by_kind(outputs: Outputs, terms: Mapping[str, Any], evaluated: Terms, gradients: Arrays) -> Results:
    tensors = {"logits": outputs.logits, "latents": outputs.latents, **outputs.posterior._asdict()}
    return {
        "loss": {name: terms[name] for name in ("total", "reconstruction")},
        "kl": {"kl": terms["kl"]},
        "tensor": {name: a for name, a in tensors.items() if a is not None},
        "evaluation": {f"evaluated {name}": value for name, value in evaluated._asdict().items()},
        "gradient": gradients,
    }
