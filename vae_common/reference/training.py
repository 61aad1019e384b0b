"""Adam and a whole training by hand in float64 NumPy, for reference/model.py's gradients or somebody else's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vae_common import randomness
from vae_common.config import Config
from vae_common.contracts import Terms, map_arrays
from vae_common.data.pixels import unit
from vae_common.randomness import Start
from vae_common.reference import objectives
from vae_common.reference.networks import Weights


def adam(
    config: Config, weights: Weights, grads: Weights, first: Weights, second: Weights, step: int
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """One update of Adam (Kingma and Ba 2015, algorithm 1) as step 1, 2, ...; new weights and moments.

    What follows the batch moves by what stands in place of its gradient.
    """
    settings = config.optimizer
    changes = {name: grads[name] for name in config.followers}
    grads = {**grads, **{name: 0 * change for name, change in changes.items()}}
    beta1, beta2, rate = settings.beta1, settings.beta2, learning_rate(config, step)
    length = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
    if settings.clip_norm and length > settings.clip_norm:
        grads = {k: g * (settings.clip_norm / length) for k, g in grads.items()}
    new_first = {k: beta1 * first[k] + (1 - beta1) * g for k, g in grads.items()}
    new_second = {k: beta2 * second[k] + (1 - beta2) * g**2 for k, g in grads.items()}
    new = {}
    for k, w in weights.items():
        mean, square = new_first[k] / (1 - beta1**step), new_second[k] / (1 - beta2**step)
        new[k] = w - rate * mean / (np.sqrt(square) + settings.eps) - changes.get(k, 0.0)
    return new, new_first, new_second


def learning_rate(config: Config, step: int) -> float:
    """Adam's step size at step 1, 2, ..."""
    settings, rate, done = config.optimizer, config.training.learning_rate, step - 1
    if settings.schedule == "cosine":
        rate *= math.cos(math.pi / 2 * min(1.0, done / settings.decay_steps)) ** 2
    if settings.schedule == "exponential":
        rate *= math.exp(math.log(settings.decay_rate) * done / settings.decay_steps)
    return rate * min(1.0, step / settings.warmup_steps) if settings.warmup_steps else rate


def averaged(config: Config, average: Weights, weights: Weights) -> dict[str, Any]:
    """The moving average after an update to these weights."""
    decay = config.optimizer.average
    return {name: decay * old + (1 - decay) * weights[name] for name, old in average.items()}


def initial(
    config: Config, shapes: Mapping[str, tuple[int, ...]], starts: Mapping[str, Start], images: Any
) -> tuple[dict[str, Any], ...]:
    """Weights, rounded to the config's dtype, and Adam's two moments before the first step on these images."""
    drawn = randomness.initial_weights(shapes, config.seed, config.network.initializer, starts)
    if config.network.output_bias == "data_mean":
        drawn = randomness.with_mean_bias(drawn, images)
    weights = {name: weight.astype(config.training.dtype).astype(np.float64) for name, weight in drawn.items()}
    first = {name: np.zeros_like(weight) for name, weight in weights.items()}
    return weights, first, {name: zeros + config.optimizer.second_moment_start for name, zeros in first.items()}


def train(
    config: Config,
    shapes: Mapping[str, tuple[int, ...]],
    starts: Mapping[str, Start],
    images: Any,
    epochs: int,
    labels: Any = None,
    terms_and_gradients: Callable[..., tuple[Terms, dict[str, Any]]] = objectives.terms_and_gradients,
) -> tuple[Terms, dict[str, Any]]:
    """The experiment's first epochs by hand: every step's mean terms, (steps,) each, and the last weights.

    `images` are the set's; initial weights, order, noise and thresholds are the seed's, the first and the noise
    rounded to the config's dtype. `terms_and_gradients` may be somebody else's.
    """
    dtype, (weights, first, second) = config.training.dtype, initial(config, shapes, starts, images)
    steps: list[Terms] = []
    for epoch in range(epochs):
        draws = randomness.epoch_draws(config, epoch, len(images))
        for step, order in enumerate(draws.order):
            batch = unit(images[order]) if draws.thresholds is None else images[order] > draws.thresholds[step]
            noise = draws.noise[step].astype(dtype).astype(np.float64)
            own = None if labels is None else labels[order]
            terms, grads = terms_and_gradients(config, weights, batch, noise, own, len(steps))
            steps.append(map_arrays(float, terms))
            weights, first, second = adam(config, weights, grads, first, second, len(steps))
    return map_arrays(lambda *each: np.array(each), *steps), weights
