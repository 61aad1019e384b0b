"""What the tiers inject into everyone: states with a batch, and gradients for Adam.

Each half and the reference start from the same injected state, so what they make of it differs by their maths
alone. Numbers are rounded to the config's dtype first, and held in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vae_common import randomness
from vae_common.config import Config
from vae_common.conformance.oracle import Oracle
from vae_common.data.pixels import unit
from vae_common.reference import training as reference_training
from vae_common.runs.checkpoints import AVERAGE, FIRST, SECOND, STEP, Arrays, weights_of

WARM_STEPS = 20
EXTREMES = {
    "encoder.mean.bias": (-30, 30),
    "encoder.log_std.bias": (-14, 5),
    "decoder.logits.bias": (-300, 300),
    "quant_conv.bias": (5, -40),  # past the clamp of log sigma^2
    "decoder.conv_out.bias": (-300, 300),
}
NEARER = {"encoder.mean.bias": (-5, 5), "encoder.log_std.bias": (-14, 0), "decoder.logits.bias": (-100, 100)}
"""Of a model with a learned prior: its density of latents far outside has so many nats that the last place shows."""


class TrainingData(NamedTuple):
    """What the tiers train on."""

    images: np.ndarray
    """uint8, (N, height, width, channels)."""
    labels: np.ndarray | None
    """Integers (N,), or None where the model is given none."""


class InjectedState(NamedTuple):
    """A state injected into everyone, and a batch."""

    label: str
    arrays: Arrays
    """Weights, moments, average and step, as a checkpoint holds them; float64."""
    images: np.ndarray
    """uint8, (batch, height, width, channels)."""
    noise: np.ndarray
    """float64, (batch, *noise_shape)."""
    labels: np.ndarray | None
    updates: bool = True
    """Whether steps from here can be compared: where gradients vanish, Adam makes whole steps of their rounding."""

    @property
    def weights(self) -> Arrays:
        """The parameters alone."""
        return weights_of(self.arrays)

    @property
    def step(self) -> int:
        """Updates before this batch."""
        return int(self.arrays[STEP])


def training_data(config: Config, images: np.ndarray, labels: np.ndarray | None = None) -> TrainingData:
    """The images with their labels, which are made up where there are none and the model is given some."""
    classes = config.network.classes
    if classes and labels is None:
        labels = np.arange(len(images)) % classes
    return TrainingData(images, None if labels is None or not classes else labels)


def injected_states(oracle: Oracle, config: Config, data: TrainingData) -> Iterator[InjectedState]:
    """A cold, a warm and an extreme state, trained by the oracle, each with its next batch."""
    rounded = np.dtype(config.training.dtype)
    weights, first, second = reference_training.initial(config, oracle.shapes, oracle.starts, data.images)
    average = dict(weights)
    steps_in_epoch = randomness.steps_per_epoch(len(data.images), config.training.batch_size)
    for step in range(WARM_STEPS + 1):
        draws = randomness.epoch_draws(config, step // steps_in_epoch, len(data.images))
        order, noise = draws.order[step % steps_in_epoch], draws.noise[step % steps_in_epoch]
        noise = noise.astype(rounded).astype(np.float64)
        images, labels = data.images[order], None if data.labels is None else data.labels[order]
        if step in (0, WARM_STEPS):
            parts = {"": weights, FIRST: first, SECOND: second} | (
                {AVERAGE: average} if config.optimizer.average else {}
            )
            arrays = {prefix + name: a for prefix, part in parts.items() for name, a in part.items()}
            arrays = {name: a.astype(rounded).astype(np.float64) for name, a in arrays.items()}
            arrays[STEP] = np.array(step, np.int64)
            yield InjectedState("warm" if step else "cold", arrays, images, noise, labels)
        _, gradients = oracle.terms_and_gradients(config, weights, unit(images), noise, labels, step)
        weights, first, second = reference_training.adam(config, weights, gradients, first, second, step + 1)
        average = reference_training.averaged(config, average, weights)
    # Outputs that are pixels have no sigmoid between them and the loss: far out they are merely large sums.
    linear = dict.fromkeys(("decoder.logits.bias", "decoder.conv_out.bias"), (-3, 3))
    extremes = EXTREMES | NEARER if any(name.startswith("prior") for name in weights) else EXTREMES
    extremes = extremes | linear if config.loss.likelihood.linear else extremes
    far = {name: np.linspace(*ends, arrays[name].size) for name, ends in extremes.items() if name in arrays}
    for part in {name.partition(".")[0] for name in weights} - {"encoder", "codebook"}:
        layers = [name for name in weights if name.startswith(f"{part}.") and name.endswith(".weight")]
        far |= {name: arrays[name] / 1000 for name in layers[:1]}  # or every unit behind it would saturate
    far = {name: array.astype(rounded).astype(np.float64) for name, array in far.items()}
    yield InjectedState("extreme", arrays | far, images, noise, labels, updates=False)


def adam_state(injected: InjectedState, t: int) -> tuple[Arrays, Arrays]:
    """A state just before Adam's step t with made-up moments, and made-up gradients.

    The gradients range over twelve decades, so that eps counts and a clip would show, and hold exact zeros.
    """
    rng = np.random.default_rng(t)
    arrays, gradients = dict(injected.arrays), {}
    for name, weight in injected.weights.items():
        scale = 10.0 ** rng.uniform(-8, 4, weight.shape)
        gradient = rng.normal(size=weight.shape) * scale * (rng.random(weight.shape) > 0.1)
        gradients[name] = gradient.astype(np.float32).astype(np.float64)
        moments = (0 * weight, 0 * weight) if t == 1 else (0.3 * scale * rng.normal(size=weight.shape), scale**2)
        for prefix, moment in zip((FIRST, SECOND), moments):
            arrays[prefix + name] = moment.astype(np.float32).astype(np.float64)
    return arrays | {STEP: np.array(t - 1, np.int64)}, gradients
