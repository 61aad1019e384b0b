"""What the halves and the reference make of an injected state: the numbers that the tiers compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_common import randomness, reference
from vae_common.backend import Half
from vae_common.config import Config
from vae_common.config.registry import size
from vae_common.conformance.oracle import inject
from vae_common.conformance.states import InjectedState, adam_state
from vae_common.conformance.tolerances import TOLERANCES
from vae_common.contracts import Outputs, Terms
from vae_common.data.pixels import unit
from vae_common.reference import training as reference_training
from vae_common.runs.checkpoints import AVERAGE, FIRST, SECOND, STEP, Arrays, moments_of, part_of, weights_of


@dataclass(frozen=True)
class Computed:
    """What a forward and a backward pass give, by kind of quantity; arrays by name."""

    loss: Mapping[str, Any]
    kl: Mapping[str, Any]
    tensor: Mapping[str, Any]
    """What the forward pass computes."""
    evaluation: Mapping[str, Any]
    gradient: Mapping[str, Any]
    injected: Mapping[str, Any]
    """The state, as it comes back."""


@dataclass(frozen=True)
class AdamUpdates:
    """What Adam makes of made-up gradients and moments, by step t; arrays by name."""

    weights: Mapping[int, Mapping[str, Any]]
    moments: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class WholeStep:
    """What one training step gives; arrays by name."""

    terms: Mapping[str, Any]
    weights: Mapping[str, Any]
    average: Mapping[str, Any]


ADAM_STEPS = (1, 2, 10, 1000, 100_000)


def half_outputs(config: Config, injected: InjectedState, half: Half) -> Computed:
    """What one half makes of an injected state in a forward and a backward pass."""
    state, batch = inject(half, config, injected.arrays), _batch(half, config, injected)
    outputs = half.forward(state.model, injected.images, injected.noise, injected.labels)
    evaluated = half.evaluate(state.evaluated, injected.images, _on_grey(config), injected.labels)
    gradients, terms = half.gradients(state, *batch)
    means = {name: half.to_numpy(term) for name, term in terms.named().items()}
    return _by_kind(outputs, means, evaluated, gradients, half.state_to_arrays(state))


def kl_depends_on_noise(half: Half, config: Config, injected: InjectedState) -> bool:
    """Whether a half's KL is another one where the noise's sign is turned: then it is estimated from the draws."""
    state, (images, noise, labels) = inject(half, config, injected.arrays), _batch(half, config, injected)
    with half.precision(config.training.dtype):
        found = [half.to_numpy(half.gradients(state, images, of, labels)[1].kl) for of in (noise, -noise)]
    return bool(abs(found[0] - found[1]) > TOLERANCES[config.training.dtype]["kl"] * abs(found[0]))


def reference_outputs(config: Config, injected: InjectedState) -> Computed:
    """What the reference makes of it."""
    images, weights, labels = unit(injected.images), injected.weights, injected.labels
    outputs = reference.forward(config, weights, images, injected.noise, labels)
    terms, gradients = reference.terms_and_gradients(config, weights, images, injected.noise, labels, injected.step)
    means = {name: np.float64(term) for name, term in terms.named().items()}
    draws = randomness.evaluation_noise(len(images), config.noise_dim)
    averages = part_of(injected.arrays, AVERAGE) or weights
    evaluated = reference.loss_terms(config.loss, reference.forward(config, averages, images, draws, labels), images)
    layers = tuple(layer._replace(prior=reference.log_prior(layer)) for layer in outputs.layers)
    return _by_kind(outputs._replace(layers=layers), means, evaluated, gradients, injected.arrays)


def half_adam(config: Config, injected: InjectedState, half: Half) -> AdamUpdates:
    """One half's updates from made-up gradients and moments."""
    adam, moments = {}, {}
    for t in ADAM_STEPS:
        start, gradient = adam_state(injected, t)
        typed = {name: g.astype(config.training.dtype) for name, g in gradient.items()}
        arrays = half.state_to_arrays(half.apply_gradients(inject(half, config, start), typed))
        adam[t], moments[t] = weights_of(arrays), moments_of(arrays)
    return AdamUpdates(adam, moments)


def half_step(config: Config, injected: InjectedState, half: Half) -> WholeStep:
    """One half's training step from the injected state."""
    after, terms = half.train_step(inject(half, config, injected.arrays), *_batch(half, config, injected))
    means = {name: half.to_numpy(term) for name, term in terms.named().items()}
    arrays = half.state_to_arrays(after)
    return WholeStep(means, weights_of(arrays), part_of(arrays, AVERAGE))


def reference_adam(config: Config, injected: InjectedState) -> AdamUpdates:
    """The reference's updates from the same."""
    weights = injected.weights
    adam: dict[int, Any] = {}
    moments: dict[int, Any] = {}
    for t in ADAM_STEPS:
        start, gradient = adam_state(injected, t)
        first, second = part_of(start, FIRST), part_of(start, SECOND)
        adam[t], first, second = reference_training.adam(config, weights, gradient, first, second, t)
        named = {FIRST + name: m for name, m in first.items()} | {SECOND + name: v for name, v in second.items()}
        moments[t] = named | {STEP: np.array(t, np.int64)}
    return AdamUpdates(adam, moments)


def reference_step(config: Config, injected: InjectedState) -> WholeStep:
    """The reference's step."""
    passed = reference_outputs(config, injected)
    first, second = part_of(injected.arrays, FIRST), part_of(injected.arrays, SECOND)
    stepped = reference_training.adam(config, injected.weights, passed.gradient, first, second, injected.step + 1)[0]
    average = reference_training.averaged(config, part_of(injected.arrays, AVERAGE), stepped)
    return WholeStep({**passed.loss, **passed.kl}, stepped, average)


def half_inference(half: Half, config: Config, injected: InjectedState) -> dict[str, Any]:
    """What one half's inference gives, on more images than one batch of it has."""
    count = half.INFERENCE_BATCH + len(injected.images)
    model = inject(half, config, injected.arrays).model
    images, labels, latents = _many(config, injected, count)
    few = len(injected.images)  # one size more would be one program more
    posterior = half.encode(model, images, labels)
    ends, some = (None, None) if labels is None else ((int(labels[0]), int(labels[1])), labels[:few])
    found = {
        "encoded mean": posterior.mean,
        "encoded log_std": posterior.log_std,
        "decoded": half.decode(model, latents, labels),
        "reconstructed": half.reconstruct(model, images, labels),
        "sampled": half.sample(model, few, 1, some),
        "interpolated": half.interpolate(model, images[0], images[1], few, ends),
        **half.evaluate(model, images, _on_grey(config), labels).named(),
    }
    return {name: array for name, array in found.items() if array is not None}


def reference_inference(config: Config, injected: InjectedState, count: int) -> dict[str, Any]:
    """What the reference gives, on as many images."""
    weights = injected.weights
    images, labels, latents = _many(config, injected, count)
    few = len(injected.images)
    noise = randomness.evaluation_noise(count, config.noise_dim)
    outputs = reference.forward(config, weights, unit(images), noise, labels)
    posterior = reference.encode(config, weights, unit(images), labels)
    (start, end) = posterior.mean[:2]
    fractions = np.linspace(0, 1, few).reshape(-1, *[1] * start.ndim)
    first, some = (None, None) if labels is None else (np.repeat(labels[:1], few), labels[:few])
    found = {
        "encoded mean": posterior.mean,
        "encoded log_std": posterior.log_std,
        "decoded": reference.decode(config, weights, latents, labels),
        "reconstructed": reference.decode(config, weights, posterior.mean, labels),
        "sampled": reference.sample(config, weights, randomness.prior_samples(1, few, config.prior_dim), some),
        "interpolated": reference.decode(config, weights, start + fractions * (end - start), first),
        **reference.loss_terms(config.loss, outputs, unit(images)).named(),
    }
    return {name: array for name, array in found.items() if array is not None}


def _on_grey(config: Config) -> Config:
    """The config as it evaluates grey images, which a binarized experiment refuses: they have more values."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, binarization="none"))


def _many(config: Config, injected: InjectedState, count: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    images = np.resize(injected.images, (count, *config.image_shape))
    labels = None if injected.labels is None else np.resize(injected.labels, count)
    flat = randomness.prior_samples(1, count, size([config.latent_shape]))
    return images, labels, flat.reshape(count, *config.latent_shape)


def _batch(half: Half, config: Config, injected: InjectedState) -> tuple[Any, Any, Any]:
    """The injected's images, noise and labels as `train_step` takes them."""
    device = half.select_device(config.training.device)
    with half.precision(config.training.dtype):
        noise = half.to_device(injected.noise.astype(config.training.dtype), device)
        return half.prepare_images(half.to_device(injected.images, device), None, noise.dtype), noise, injected.labels


def _by_kind(
    outputs: Outputs, terms: Mapping[str, Any], evaluated: Terms, gradients: Arrays, injected: Arrays
) -> Computed:
    tensors = {"logits": outputs.logits, "latents": outputs.latents, "log_scale": outputs.log_scale}
    for place, layer in enumerate(outputs.layers, 1):
        of = f"layer {place} " if len(outputs.layers) > 1 else ""
        tensors |= {f"{of}latents": layer.latents, f"{of}log prior": layer.prior}
        tensors |= {f"{of}{name}": array for name, array in layer.posterior._asdict().items()}
    if outputs.codes is not None:
        tensors |= {f"code {name}": array for name, array in outputs.codes._asdict().items()}
    losses = {name: term for name, term in terms.items() if name in ("total", "reconstruction", "objective")}
    return Computed(
        loss=losses,
        kl={name: term for name, term in terms.items() if name not in losses},
        tensor={name: a for name, a in tensors.items() if a is not None},
        evaluation={f"evaluated {name}": value for name, value in evaluated.named().items()},
        gradient=gradients,
        injected=injected,
    )
