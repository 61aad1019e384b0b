"""Every random number of an experiment, drawn by NumPy so that both halves get the same ones.

Counter-based: each draw has a generator of its own (Philox), keyed by the experiment's seed, the
name of the stream, and indices such as the epoch. So any epoch can be drawn without those before
it, which is what makes a resumed run equal to one that never stopped. Draws are made in float64 and
rounded by the user, so float32 and float64 runs see the same experiment.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vae_common.configs import Config, InputError

_STREAMS = {
    name: index
    for index, name in enumerate(("weights", "order", "noise", "thresholds", "evaluation", "static", "split", "prior"))
}
# Draws that belong to a data set and not to an experiment have this in place of the seed.
_DATA_KEY = 0


def generator(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """The generator of one named stream; equal arguments give equal numbers, always."""
    return np.random.Generator(np.random.Philox(seed_sequence(seed, _STREAMS[stream], *indices)))


def seed_sequence(seed: int, *indices: int) -> np.random.SeedSequence:
    """NumPy's entropy for a seed below 2^64 and as many indices as its other uses have.

    NumPy flattens what it is given into 32-bit words and fills up with zeros, so a seed of two words could
    be another seed at the next index. Its upper word comes last, where it is not zero.
    """
    high, low = divmod(seed, 2**32)
    return np.random.SeedSequence((low, *indices, high) if high else (low, *indices))


class Draws(NamedTuple):
    """All random numbers of one epoch, as arrays of either framework."""

    order: np.ndarray
    """Image indices, int32, shape (steps, batch)."""
    noise: np.ndarray
    """Standard normal, shape (steps, batch, noise_dim)."""
    thresholds: np.ndarray | None
    """Uniform on 0..254, uint8, shape (steps, batch, height, width, channels), or None."""


def initial_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Uniform on +-1/sqrt(fan_in) for weights and biases: the tutorial's, which is PyTorch's.

    `shapes` maps canonical names (`encoder.mean.weight`) to canonical shapes, (out, in, ...). Each
    tensor has its own stream, so a new layer leaves the draws of the others alone. Float64.
    """
    weights = {}
    for name, shape in shapes.items():
        weight_shape = shapes[name.removesuffix(".bias") + ".weight"] if name.endswith(".bias") else shape
        bound = 1 / math.sqrt(math.prod(weight_shape[1:]))
        draw = generator(seed, "weights", zlib.crc32(name.encode()))
        weights[name] = draw.uniform(-bound, bound, shape)
    return weights


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches in one pass; raises InputError where there is none."""
    if images < batch_size:
        raise InputError(f"batch_size: received {batch_size}, expected at most the {images} training images")
    return images // batch_size


def epoch_draws(config: Config, epoch: int, images: int) -> Draws:
    """The draws of epoch 0, 1, ... over a training split of that many images."""
    batch = config.training.batch_size
    steps = steps_per_epoch(images, batch)
    order = generator(config.seed, "order", epoch).permutation(images)[: steps * batch]
    noise = generator(config.seed, "noise", epoch).standard_normal((steps, batch, config.noise_dim))
    thresholds = None
    if config.data.binarization == "dynamic":
        shape = (steps, batch, *config.image_shape)
        thresholds = _thresholds(generator(config.seed, "thresholds", epoch), shape)
    return Draws(order.astype(np.int32).reshape(steps, batch), noise, thresholds)


def evaluation_noise(images: int, noise_dim: int) -> np.ndarray:
    """One posterior draw per image, float64 (images, noise_dim).

    The same for every experiment, so that an evaluation is a function of the weights alone and two
    evaluations differ by their weights only.
    """
    return generator(_DATA_KEY, "evaluation").standard_normal((images, noise_dim))


def static_thresholds(split: str, shape: tuple[int, ...]) -> np.ndarray:
    """The fixed draw of static binarization (and of every evaluation on binarized data), uint8."""
    return _thresholds(generator(_DATA_KEY, "static", zlib.crc32(split.encode())), shape)


def split_order(images: int) -> np.ndarray:
    """A fixed permutation, for sets that come without the split that is asked for."""
    return generator(_DATA_KEY, "split").permutation(images)


def prior_samples(seed: int, count: int, latent_dim: int) -> np.ndarray:
    """Draws from the standard-normal prior, float64 (count, latent_dim)."""
    return generator(seed, "prior").standard_normal((count, latent_dim))


def _thresholds(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A pixel of value v in 0..255 is above its threshold with probability v/255, exactly."""
    return draw.integers(0, 255, shape, dtype=np.uint8)
