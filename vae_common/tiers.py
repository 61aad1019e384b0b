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
from itertools import combinations
from types import ModuleType
from typing import Any

import numpy as np

from vae_common import randomness, reference, reference_training
from vae_common.configs import Config
from vae_common.contracts import Outputs, Posterior, Terms, map_arrays
from vae_common.passes import (
    ADAM_STEPS,
    Results,
    half_inference,
    half_pass,
    half_updates,
    reference_inference,
    reference_pass,
    reference_updates,
)
from vae_common.probes import Data, Probe
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
from vae_common.voices import voice_for

Halves = Mapping[str, ModuleType]

TIERS = ("T0", "T1", "T2", "T3", "T4a", "T4b", "T5")


def input_checks(halves: Halves, config: Config, data: Data) -> Iterator[Check]:
    """T0: the models' shapes and dtypes, their initial weights, and the draws of two epochs."""
    dtype, voice, count = config.training.dtype, voice_for(halves, config), len(data.images)
    weights = randomness.initial_weights(voice.shapes, config.seed, config.network.initializer)
    for name, half in halves.items():
        model, against = half.create_model(config), f"{name} against {voice.name}"
        found = {k: np.array(v, np.int64) for k, v in half.parameter_shapes(model).items()}
        expected = {k: np.array(v, np.int64) for k, v in voice.shapes.items()}
        yield from compare_arrays("T0", f"shape: {against}", found, expected, 0)
        arrays = half.to_arrays(model)
        wrong = float(sum(array.dtype != dtype for array in arrays.values()) or half.parameter_dtype(model) != dtype)
        yield Check("T0", f"dtype: {name}", wrong, 0)
        exact = {k: w.astype(dtype) for k, w in weights.items()}
        yield from compare_arrays("T0", f"initial: {against}", arrays, exact, 0)
        for epoch in (0, 1):
            expected_draws = randomness.epoch_draws(config, epoch, count)
            expected_draws = expected_draws._replace(noise=expected_draws.noise.astype(dtype))
            draws = half.epoch_draws(config, epoch, count)
            for kind, a, b in zip(draws._fields, draws, expected_draws):
                if b is not None and b.size:
                    where = f"{kind} of epoch {epoch}: {against}"
                    yield Check("T0", where, np.inf if a is None else difference(half.to_numpy(a), b), 0)


def operation_checks(halves: Halves, config: Config) -> Iterator[Check]:
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
    scales = np.stack([draw.normal(size=(8, 1, 1, 1)) + offset for offset in (-2, -7, 3)]).astype(dtype)
    noises = draw.normal(size=(3, 8, 5)).astype(dtype)
    latents = [(p.mean + np.exp(p.log_std) * n).astype(dtype) for p, n in zip(posteriors, noises)]
    cases = list(zip(logits, targets, posteriors, latents, noises, scales))
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
            found["pixel means"] = half.pixel_means(put(x), loss.reconstruction)
            for case, (logit, target, posterior, latent, noise, scale) in enumerate(cases):
                outputs = Outputs(*map_arrays(put, (logit, posterior, latent, noise, scale)))
                for term, value in half.loss_terms(loss, outputs, put(target))._asdict().items():
                    found[f"{term} {case}"] = value
        expected = {
            "images": every_value / 255,
            "binarized": (every_value > thresholds).astype(np.float64),
            "activation": reference.activate(config.network.activation, x.astype(np.float64)),
            "pixel means": reference.pixel_means(x.astype(np.float64), loss.reconstruction),
        }
        for case, inputs in enumerate(cases):
            logit, target, posterior, latent, noise, scale = map_arrays(lambda a: a.astype(np.float64), inputs)
            outputs = Outputs(logit, posterior, latent, noise, scale)
            for term, value in reference.loss_terms(loss, outputs, target)._asdict().items():
                expected[f"{term} {case}"] = value
        arrays = {key: half.to_numpy(value) for key, value in found.items()}
        yield from compare_arrays("T1", f"{name} against reference", arrays, expected, tolerance)


def state_checks(halves: Halves, config: Config, probe: Probe) -> Iterator[Check]:
    """T2 to T4b from one injected state: every half against the reference, and the halves themselves."""
    dtype, rate = config.training.dtype, config.training.learning_rate
    limits = TOLERANCES[dtype]
    for x, y, where in _pairs(halves, config, probe, half_pass, reference_pass):
        yield from compare_arrays("T0", f"injected, {where}", x["injected"], y["injected"], 0)
        for kind in ("loss", "kl", "tensor"):
            yield from compare_arrays("T2", where, x[kind], y[kind], limits[kind])
        yield from compare_arrays("T2", where, x["evaluation"], y["evaluation"], limits["tensor"])
        yield from compare_arrays("T3", where, x["gradient"], y["gradient"], limits["gradient"])
    if not probe.updates:
        return
    for x, y, where in _pairs(halves, config, probe, half_updates, reference_updates):
        for t in ADAM_STEPS:
            at = f"t={t}, {where}"
            if dtype == "float64":
                yield from compare_arrays("T4a", at, x[f"adam {t}"], y[f"adam {t}"], limits["adam"], rate)
            else:
                yield from rounded_updates("T4a", at, x[f"adam {t}"], y[f"adam {t}"], rate)
            yield from compare_arrays("T4a", at, x[f"moments {t}"], y[f"moments {t}"], limits["tensor"])
        yield from compare_arrays("T4b", where, x["terms"], y["terms"], limits["kl"])
        if config.optimizer.average:
            yield from compare_arrays("T4b", f"average, {where}", x["average"], y["average"], limits["tensor"])
        if dtype == "float64":
            yield from compare_arrays("T4b", where, x["step"], y["step"], limits["step"], rate)
        else:
            yield from chaotic_updates("T4b", where, x["step"], y["step"], probe.weights, limits["step"], rate)


def inference_checks(halves: Halves, config: Config, probe: Probe) -> Iterator[Check]:
    """T2: what users call, on more images than one batch of it, each half against the reference."""
    tolerance = TOLERANCES[config.training.dtype]["tensor"]
    found = {name: half_inference(half, config, probe) for name, half in halves.items()}
    if reference.knows(config):
        count = next(iter(halves.values())).inference.BATCH + 7
        found["reference"] = reference_inference(config, probe, count)
    *others, last = found
    for name in others:
        yield from compare_arrays("T2", f"inference: {name} against {last}", found[name], found[last], tolerance)


def epoch_checks(halves: Halves, config: Config, data: Data, steps: int) -> Iterator[Check]:
    """T5: `train_epoch` over whole epochs, at least that many steps, each half against the reference."""
    images, labels = data
    epochs = -(-steps // randomness.steps_per_epoch(len(images), config.training.batch_size))
    voice = voice_for(halves, config)
    initial = reference_training.initial(config, voice.shapes, images)[0]
    expected, weights = reference_training.train(config, voice.shapes, images, epochs, labels, voice.of_batch)
    limits = lockstep_tolerances(config.training.dtype, len(expected.total))
    for name, half in halves.items():
        where = f"of {len(expected.total)} steps by train_epoch: {name} against {voice.name}"
        state, placed, taken = half.create_state(config, images), half.place_images(images, config), []
        own = None if labels is None else half.place_labels(labels, config)
        for epoch in range(epochs):
            state, terms = half.train_epoch(state, placed, half.epoch_draws(config, epoch, len(images)), own)
            taken.append([half.to_numpy(term) for term in terms])
        for term, found, by_hand in zip(Terms._fields, np.concatenate(taken, axis=1), expected):
            apart = [difference(a, b) for a, b in zip(found, by_hand)]
            worst = int(np.argmax(apart / limits[term]))
            yield Check("T5", f"{term} at step {worst + 1} {where}", apart[worst], float(limits[term][worst]))
        if config.training.dtype == "float64":
            found, most = half.to_arrays(state.model), TOLERANCES["float64"]["epoch_update"]
            yield from update_checks("T5", f"after {where}", found, weights, initial, most)


def _pairs(
    halves: Halves,
    config: Config,
    probe: Probe,
    of_half: Callable[[Config, Probe, ModuleType], Results],
    of_reference: Callable[[Config, Probe], Results],
) -> Iterator[tuple[Results, Results, str]]:
    """Every two of the halves and the reference, if it knows the model: their results, and a label."""
    results = {name: of_half(config, probe, half) for name, half in halves.items()}
    if reference.knows(config):
        results["reference"] = of_reference(config, probe)
    for a, b in combinations(results, 2):
        yield results[a], results[b], f"{probe.label}: {a} against {b}"
