"""What the tiers inject into everyone: states with a batch, and gradients for Adam.

Each half and the reference start from the same probe, so what they make of it differs by their maths
alone. Numbers are rounded to the config's dtype first, and held in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vae_common import randomness, reference
from vae_common.checkpoints import FIRST, SECOND, STEP, Arrays, weights_of
from vae_common.configs import Config

WARM_STEPS = 20
EXTREMES = {"encoder.mean.bias": (-30, 30), "encoder.log_std.bias": (-14, 5), "decoder.logits.bias": (-300, 300)}


class Probe(NamedTuple):
    """A state injected into everyone, and a batch."""

    label: str
    arrays: Arrays
    """Weights, moments and step, as a checkpoint holds them; float64."""
    images: np.ndarray
    """uint8, (batch, height, width, channels)."""
    noise: np.ndarray
    """float64, (batch, noise_dim)."""
    updates: bool = True
    """Whether steps from here can be compared: where gradients vanish, Adam makes whole steps of their rounding."""

    @property
    def weights(self) -> Arrays:
        """The parameters alone."""
        return weights_of(self.arrays)


def probes(config: Config, images: np.ndarray) -> Iterator[Probe]:
    """A cold, a warm and an extreme state, trained by the reference, each with its next batch."""
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
    far = {name: np.linspace(*ends, arrays[name].size) for name, ends in EXTREMES.items() if name in arrays}
    first_layer = next(name for name in weights if name.startswith("decoder.") and name.endswith(".weight"))
    far[first_layer] = arrays[first_layer] / 1000  # or every unit behind it would saturate
    far = {name: array.astype(rounded).astype(np.float64) for name, array in far.items()}
    yield Probe("extreme", arrays | far, images[order], noise, updates=False)


def adam_probe(weights: Arrays, t: int) -> tuple[Arrays, Arrays]:
    """A state just before Adam's step t with made-up moments, and made-up gradients.

    The gradients range over twelve decades, so that eps counts and a clip would show, and hold exact zeros.
    """
    draw = np.random.default_rng(t)
    arrays, gradients = dict(weights), {}
    for name, weight in weights.items():
        scale = 10.0 ** draw.uniform(-8, 4, weight.shape)
        gradient = draw.normal(size=weight.shape) * scale * (draw.random(weight.shape) > 0.1)
        gradients[name] = gradient.astype(np.float32).astype(np.float64)
        moments = (0 * weight, 0 * weight) if t == 1 else (0.3 * scale * draw.normal(size=weight.shape), scale**2)
        for prefix, moment in zip((FIRST, SECOND), moments):
            arrays[prefix + name] = moment.astype(np.float32).astype(np.float64)
    return arrays | {STEP: np.array(t - 1, np.int64)}, gradients
