"""The tiers of checks between the halves and the reference, from a name's spelling to a whole step.

    T0  names, shapes, dtypes, initial weights; order, noise and binarization of an epoch: exact
    T1  preparing images, activations, loss terms, saturated logits too
    T2  forward pass: loss terms, mean, log_std, latents, logits
    T3  gradient of each tensor
    T4a Adam from identical gradients and moments, t = 1, 2, 10, 1000
    T4b one whole step
    T5  lockstep: many steps from the same seed (see comparison.py)

T1 to T4 hold each half against `reference` too, so a formula that is wrong in both is caught, and a
majority says which half is wrong. They start from injected equal states, cold (initial weights) and
warm (after 20 steps), because a cold start hides faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from vae_common import randomness, reference
from vae_common.checkpoints import FIRST, SECOND, STEP
from vae_common.configs import Config
from vae_common.contracts import Outputs, Posterior, Terms
from vae_common.tolerances import TOLERANCES, Check, chaotic_updates, compare_arrays, difference, rounded_updates

Arrays = dict[str, np.ndarray]
Halves = Mapping[str, ModuleType]

TIERS = ("T0", "T1", "T2", "T3", "T4a", "T4b", "T5")
ADAM_STEPS = (1, 2, 10, 1000)
WARM_STEPS = 20


class Probe(NamedTuple):
    """A state injected into everyone, and a batch."""

    label: str
    arrays: Arrays
    """Weights, moments and step, as a checkpoint holds them; float64."""
    images: np.ndarray
    """uint8, (batch, height, width, channels)."""
    noise: np.ndarray
    """float64, (batch, noise_dim)."""

    @property
    def weights(self) -> Arrays:
        """The parameters alone."""
        return weights_of(self.arrays)


def probes(config: Config, images: np.ndarray) -> Iterator[Probe]:
    """A cold and a warm state, the warm one trained by the reference, each with its next batch."""
    rounded = np.dtype(config.training.dtype)
    weights = {
        name: w.astype(rounded).astype(np.float64)
        for name, w in randomness.initial_weights(reference.shapes(config), config.seed).items()
    }
    first = second = {name: np.zeros_like(w) for name, w in weights.items()}
    steps_in_epoch = randomness.steps_per_epoch(len(images), config.training.batch_size)
    for step in range(WARM_STEPS + 1):
        draws = randomness.epoch_draws(config, step // steps_in_epoch, len(images))
        order, noise = draws.order[step % steps_in_epoch], draws.noise[step % steps_in_epoch]
        noise = noise.astype(rounded).astype(np.float64)
        if step in (0, WARM_STEPS):
            arrays = weights | {FIRST + k: v for k, v in first.items()} | {SECOND + k: v for k, v in second.items()}
            arrays = {name: a.astype(rounded).astype(np.float64) for name, a in arrays.items()}
            arrays[STEP] = np.array(step, np.int64)
            yield Probe("warm" if step else "cold", arrays, images[order], noise)
        gradients = reference.gradients(config, weights, images[order] / 255, noise)
        rate = config.training.learning_rate
        weights, first, second = reference.adam(weights, gradients, first, second, step + 1, rate)


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
    logits = np.stack([draw.normal(size=shape) * 3, *(np.full(shape, s) for s in (-100.0, 100.0))]).astype(dtype)
    targets = np.stack([draw.random(shape), draw.random(shape) > 0.5, draw.random(shape)]).astype(dtype)
    mean, log_std = draw.normal(size=(2, 8, 5)).astype(dtype)
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
            for case, (logit, target) in enumerate(zip(logits, targets)):
                outputs = Outputs(put(logit), Posterior(put(mean), put(log_std)), None)
                for term, value in half.loss_terms(loss, outputs, put(target))._asdict().items():
                    found[f"{term} {case}"] = value
        expected = {
            "images": every_value / 255,
            "binarized": (every_value > thresholds).astype(np.float64),
            "activation": reference._activate(config.network.activation, x.astype(np.float64))[0],
        }
        for case, (logit, target) in enumerate(zip(logits.astype(np.float64), targets)):
            outputs = Outputs(logit, Posterior(mean.astype(np.float64), log_std.astype(np.float64)), None)
            for term, value in reference.loss_terms(loss, outputs, target)._asdict().items():
                expected[f"{term} {case}"] = value
        arrays = {key: half.to_numpy(value) for key, value in found.items()}
        yield from compare_arrays("T1", f"{name} against reference", arrays, expected, tolerance)


def state_checks(halves: Halves, config: Config, probe: Probe) -> Iterator[Check]:
    """T2 to T4b from one injected state: every half against the reference, and the halves themselves."""
    dtype, rate = config.training.dtype, config.training.learning_rate
    limits = TOLERANCES[dtype]
    results = {name: _half_results(half, config, probe) for name, half in halves.items()}
    results["reference"] = _reference_results(config, probe)
    names = list(results)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            x, y, where = results[a], results[b], f"{probe.label}: {a} against {b}"
            yield from compare_arrays("T0", f"injected, {where}", x["injected"], y["injected"], 0)
            for kind in ("loss", "kl", "tensor"):
                yield from compare_arrays("T2", where, x[kind], y[kind], limits[kind])
            yield from compare_arrays("T2", where, x["evaluation"], y["evaluation"], limits["tensor"])
            yield from compare_arrays("T3", where, x["gradient"], y["gradient"], limits["gradient"])
            for t in ADAM_STEPS:
                at = f"t={t}, {where}"
                if dtype == "float64":
                    yield from compare_arrays("T4a", at, x[f"adam {t}"], y[f"adam {t}"], limits["adam"], rate)
                else:
                    yield from rounded_updates("T4a", at, x[f"adam {t}"], y[f"adam {t}"], rate)
                yield from compare_arrays("T4a", at, x[f"moments {t}"], y[f"moments {t}"], limits["tensor"])
            if dtype == "float64":
                yield from compare_arrays("T4b", where, x["step"], y["step"], limits["step"], rate)
            else:
                yield from chaotic_updates("T4b", where, x["step"], y["step"], probe.weights, limits["step"], rate)


def _half_results(half: ModuleType, config: Config, probe: Probe) -> dict[str, Mapping[str, Any]]:
    """What one half makes of a probe, as float64 arrays by kind and canonical name."""
    dtype = config.training.dtype
    device = half.select_device(config.training.device)

    def inject(arrays: Arrays) -> Any:
        typed = {name: a if name == STEP else a.astype(dtype) for name, a in arrays.items()}
        return half.state_from_arrays(config, typed)

    state = inject(probe.arrays)
    injected = half.state_to_arrays(state)
    outputs = half.forward(state.model, probe.images, probe.noise)
    evaluated = half.evaluate(state.model, probe.images, config)
    with half.precision(dtype):
        noise = half.to_device(probe.noise.astype(dtype), device)
        images = half.prepare_images(half.to_device(probe.images, device), None, noise.dtype)
        gradients, terms = half.gradients(state, images, noise)
    means = {k: half.to_numpy(v) for k, v in terms._asdict().items()}
    results = _by_kind(outputs, means, evaluated, gradients) | {"injected": injected}
    for t in ADAM_STEPS:
        start, gradient = adam_probe(probe.weights, t)
        typed = {name: g.astype(dtype) for name, g in gradient.items()}
        arrays = half.state_to_arrays(half.apply_gradients(inject(start), typed))
        results |= {f"adam {t}": weights_of(arrays), f"moments {t}": moments_of(arrays)}
    with half.precision(dtype):
        after, _ = half.train_step(state, images, noise)
    results["step"] = half.to_arrays(after.model)
    return results


def _reference_results(config: Config, probe: Probe) -> dict[str, Mapping[str, Any]]:
    images, weights, rate = probe.images / 255, probe.weights, config.training.learning_rate
    outputs = reference.forward(config, weights, images, probe.noise)
    terms = {k: v.mean() for k, v in reference.loss_terms(config.loss, outputs, images)._asdict().items()}
    gradients = reference.gradients(config, weights, images, probe.noise)
    draws = randomness.evaluation_noise(len(images), config.noise_dim)
    evaluated = reference.loss_terms(config.loss, reference.forward(config, weights, images, draws), images)
    results = _by_kind(outputs, terms, evaluated, gradients) | {"injected": probe.arrays}
    for t in ADAM_STEPS:
        start, gradient = adam_probe(weights, t)
        updated = reference.adam(weights, gradient, _part(start, FIRST), _part(start, SECOND), t, rate)
        moments = {FIRST + k: v for k, v in updated[1].items()} | {SECOND + k: v for k, v in updated[2].items()}
        results |= {f"adam {t}": updated[0], f"moments {t}": moments | {STEP: np.array(t, np.int64)}}
    step = int(probe.arrays[STEP]) + 1
    results["step"] = reference.adam(
        weights, gradients, _part(probe.arrays, FIRST), _part(probe.arrays, SECOND), step, rate
    )[0]
    return results


def adam_probe(weights: Arrays, t: int) -> tuple[Arrays, Arrays]:
    """A state just before Adam's step t with made-up moments, and made-up gradients.

    The gradients range over eight decades, so that eps counts, and hold exact zeros.
    """
    draw = np.random.default_rng(t)
    arrays, gradients = dict(weights), {}
    for name, weight in weights.items():
        scale = 10.0 ** draw.uniform(-8, 0, weight.shape)
        gradient = draw.normal(size=weight.shape) * scale * (draw.random(weight.shape) > 0.1)
        gradients[name] = gradient.astype(np.float32).astype(np.float64)
        moments = (0 * weight, 0 * weight) if t == 1 else (0.3 * scale * draw.normal(size=weight.shape), scale**2)
        for prefix, moment in zip((FIRST, SECOND), moments):
            arrays[prefix + name] = moment.astype(np.float32).astype(np.float64)
    return arrays | {STEP: np.array(t - 1, np.int64)}, gradients


def _by_kind(
    outputs: Outputs, terms: Mapping[str, Any], evaluated: Terms, gradients: Arrays
) -> dict[str, Mapping[str, Any]]:
    tensors = {"logits": outputs.logits, "latents": outputs.latents, **outputs.posterior._asdict()}
    return {
        "loss": {name: terms[name] for name in ("total", "reconstruction")},
        "kl": {"kl": terms["kl"]},
        "tensor": {name: a for name, a in tensors.items() if a is not None},
        "evaluation": {f"evaluated {name}": value for name, value in evaluated._asdict().items()},
        "gradient": gradients,
    }


def weights_of(arrays: Arrays) -> Arrays:
    return {name: a for name, a in arrays.items() if not name.startswith("adam.")}


def moments_of(arrays: Arrays) -> Arrays:
    return {name: a for name, a in arrays.items() if name.startswith("adam.")}


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
