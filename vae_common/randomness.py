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
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vae_common.config import Config
from vae_common.config.checks import require_count
from vae_common.errors import InputError

_STREAMS = {
    name: index
    for index, name in enumerate(
        ("weights", "order", "noise", "thresholds", "evaluation", "static", "split", "prior", "marginal", "rows")
    )
}
# Draws that belong to a data set and not to an experiment have this in place of the seed.
_DATA_KEY = 0
LOG_SCALE = -2.0  # exp(-2) = 0.14 of the pixels' range, about what is left to explain


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


def key_words(seed: int, stream: str, *indices: int) -> np.ndarray:
    """The key of one named stream's counters (see counters.py): two 32-bit words."""
    return seed_sequence(seed, _STREAMS[stream], *indices).generate_state(2, np.uint32)


class Draws(NamedTuple):
    """All random numbers of one epoch, as arrays of either framework."""

    order: Any
    """Image indices, int32, shape (steps, batch)."""
    noise: Any
    """Standard normal, shape (steps, batch[, samples], noise_dim)."""
    thresholds: Any
    """Uniform on 0..254, uint8, shape (steps, batch, height, width, channels), or None."""


@dataclass(frozen=True)
class Start:
    """How a parameter that belongs to no layer begins: all at `mean`, or normal around it."""

    mean: float = 0.0
    deviation: float = 0.0


def initial_weights(
    shapes: Mapping[str, tuple[int, ...]],
    seed: int,
    initializer: str = "torch_uniform",
    starts: Mapping[str, Start] | None = None,
) -> dict[str, np.ndarray]:
    """An experiment's initial weights, float64.

    `shapes` maps canonical names (`encoder.mean.weight`) to canonical shapes, (out, in, ...). Each
    tensor has its own stream, so a new layer leaves the draws of the others alone.

    - torch_uniform: uniform on +-1/sqrt(fan_in) for weights and biases, the tutorial's, which is PyTorch's;
    - glorot_uniform: uniform on +-sqrt(6 / (fan_in + fan_out)), zero biases (Glorot and Bengio 2010, eq. 16);
    - lecun_normal: normal with variance 1/fan_in, truncated at two standard deviations, zero biases; Flax's.

    A parameter that belongs to no layer, such as `decoder.log_scale`, says in `starts` how it begins; InputError where
    it does not.
    """
    weights = {}
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        rng = generator(seed, "weights", zlib.crc32(name.encode()))
        if starts and name in starts:
            start = starts[name]
            weights[name] = np.full(shape, start.mean)
            if start.deviation:
                weights[name] += start.deviation * rng.standard_normal(shape)
            continue
        if kind not in ("weight", "bias") or f"{layer}.weight" not in shapes:
            raise InputError(
                f"parameter {name}: received no start, expected one: make it with parameter({shape}, Start(...))"
            )
        weight_shape = shapes[f"{layer}.weight"]
        fan_in, field = math.prod(weight_shape[1:]), math.prod(weight_shape[2:])
        if kind == "bias" and initializer != "torch_uniform":
            weights[name] = np.zeros(shape)
        elif initializer == "lecun_normal":
            from scipy import stats  # only those who need it wait for it

            # A normal that is cut at 2 has 0.8796 of its standard deviation.
            drawn = stats.truncnorm.ppf(rng.random(shape), -2, 2)
            weights[name] = drawn / (stats.truncnorm.std(-2, 2) * math.sqrt(fan_in))
        else:
            bound = 1 / math.sqrt(fan_in)
            if initializer == "glorot_uniform":
                bound = math.sqrt(6 / (fan_in + weight_shape[0] * field))
            weights[name] = rng.uniform(-bound, bound, shape)
    return weights


def with_mean_bias(weights: Mapping[str, np.ndarray], images: np.ndarray | None) -> dict[str, np.ndarray]:
    """Weights whose output bias is the logit of the mean of images (N, height, width, channels).

    Of each pixel, or of each channel where the last layer is a convolution; means are kept off 0 and 1.
    """
    if images is None:
        raise InputError("output_bias: received data_mean and no images, expected create_state(config, images)")
    from scipy import special

    bias = weights["decoder.logits.bias"]
    means = images.mean(0, dtype=np.float64) / (255 if images.dtype == np.uint8 else 1)
    means = means.ravel() if bias.size == means.size else means.mean((0, 1))
    return {**weights, "decoder.logits.bias": special.logit(means.clip(0.001, 0.999)).astype(bias.dtype)}


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches in one pass; raises InputError where there is none."""
    require_count("images", images)
    if images < batch_size:
        raise InputError(f"batch_size: received {batch_size}, expected at most the {images} training images")
    return images // batch_size


def epoch_draws(config: Config, epoch: int, images: int) -> Draws:
    """The draws of epoch 0, 1, ... over a training split of that many images."""
    batch = config.training.batch_size
    steps = steps_per_epoch(images, batch)
    if config.training.randomness == "counter":
        return _counted_draws(config, epoch, images)
    order = generator(config.seed, "order", epoch).permutation(images)[: steps * batch]
    noise = generator(config.seed, "noise", epoch).standard_normal((steps, batch, *config.noise_shape))
    thresholds = None
    if config.data.binarization == "dynamic":
        shape = (steps, batch, *config.image_shape)
        thresholds = _thresholds(generator(config.seed, "thresholds", epoch), shape)
    return Draws(order.astype(np.int32).reshape(steps, batch), noise, thresholds)


def _counted_draws(config: Config, epoch: int, images: int) -> Draws:
    """Those of counters (see counters.py): each a function of its image's place in the epoch and of its own index."""
    from vae_common import counters

    batch = config.training.batch_size
    steps = images // batch
    places = np.arange(steps * batch)
    order = counted_order(config, epoch, places, images)
    shape = (steps, batch, *config.noise_shape)
    noise = counters.normals(_words(config, "noise", epoch, places, shape))
    thresholds = None
    if config.data.binarization == "dynamic":
        shape = (steps, batch, *config.image_shape)
        thresholds = counters.thresholds(_words(config, "thresholds", epoch, places, shape))
    return Draws(order.astype(np.int32).reshape(steps, batch), noise, thresholds)


def counted_order(config: Config, epoch: int, places: np.ndarray, images: int) -> np.ndarray:
    """The images, of that many, that come at these places of an epoch; int64, of counters."""
    from vae_common import counters

    return counters.in_blocks(key_words(config.seed, "order", epoch), places, images, config.data.block)


def _words(config: Config, stream: str, epoch: int, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """32 bits for each number of each image, of the shape (steps, batch, ...)."""
    from vae_common import counters

    own = np.arange(math.prod(shape[2:]))
    return counters.bits(key_words(config.seed, stream, epoch), places[:, None], own[None]).reshape(shape)


def evaluation_generator() -> np.random.Generator:
    """What draws the noise of an evaluation, part by part."""
    return generator(_DATA_KEY, "evaluation")


def evaluation_noise(images: int, noise_dim: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """One posterior draw per image, float64 (images, noise_dim); `rng` goes on where an earlier part ended.

    The same for every experiment, so that an evaluation is a function of the weights alone and two
    evaluations differ by their weights only.
    """
    return (rng or evaluation_generator()).standard_normal((images, noise_dim))


def marginal_noise(first: int, start: int, shape: tuple[int, ...]) -> np.ndarray:
    """Posterior draws `start`, `start + 1`, ... of images `first`, `first + 1`, ..., to estimate likelihoods with."""
    return generator(_DATA_KEY, "marginal", first, start).standard_normal(shape, np.float32)


def static_thresholds(split: str, shape: tuple[int, ...]) -> np.ndarray:
    """The fixed draw of static binarization (and of every evaluation on binarized data), uint8."""
    return _thresholds(generator(_DATA_KEY, "static", zlib.crc32(split.encode())), shape)


def split_order(images: int) -> np.ndarray:
    """A fixed permutation, for sets that come without the split that is asked for."""
    return generator(_DATA_KEY, "split").permutation(images)


def some_rows(count: int, most: int) -> np.ndarray:
    """Indices of `most` rows of `count` (of all, where there are no more), a fixed draw in random order.

    What stands for a whole set is drawn from all over it: sets come sorted by class, by day, by patient.
    """
    return generator(_DATA_KEY, "rows").permutation(count)[:most]


def prior_samples(seed: int, count: int, latent_dim: int) -> np.ndarray:
    """Draws from the standard-normal prior, float64 (count, latent_dim)."""
    return generator(seed, "prior").standard_normal((count, latent_dim))


def _thresholds(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A pixel of value v in 0..255 is above its threshold with probability v/255, exactly."""
    return rng.integers(0, 255, shape, dtype=np.uint8)
