"""Images, labels and random numbers on the device. Twin: torch_vae/batches.py."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_common import randomness
from vae_common.config import Config
from vae_common.config.checks import require_count
from vae_common.data.batches import require_batch, require_labels, require_resident
from vae_common.data.streams import Chunk
from vae_common.errors import InputError, require
from vae_common.randomness import Draws

from .counters import bits, normals, permuted, thresholds
from .device import Array, device_for, precision, to_numpy
from .distributed import devices, part_order, place_part, split
from .meshes import placement_for, put


def prepare_images(images: Array, thresholds: Array | None, dtype: Any) -> Array:
    """What the model sees of images on the device: uint8 goes to [0, 1], floats stay as they are.

    With `thresholds` (uint8, the images' shape) a pixel is 1 where it exceeds its own, else 0.
    """
    if thresholds is not None:
        return (images > thresholds).astype(dtype)
    return images.astype(dtype) / 255 if images.dtype == jnp.uint8 else images.astype(dtype)


def place_images(images: np.ndarray, config: Config) -> jax.Array:
    """Images, uint8 from 0 to 255, bool or float32 in [0, 1], as they stay on the device for a whole fit.

    Several devices hold all of them each; of a stream each has its part (`place_chunk`), and InputError is raised here.
    """
    expected = "parts of them, from place_chunk, where several devices share a stream"
    require(devices() == 1 or not config.data.stream, "images", "a whole set", expected)
    return put(require_resident(config, images), placement_for(config))


def place_labels(labels: np.ndarray, config: Config) -> jax.Array:
    """Labels as they stay on the device for a whole fit, where the model is given classes."""
    return put(require_labels(config, labels), placement_for(config))


def place_chunk(chunk: Chunk, config: Config, epoch: int) -> tuple[Any, ...]:
    """Images, draws and, where the model is given classes, labels of some steps of a stream's epoch, on the devices.

    Each process gives those that fall to it. On a processor they stay where they are: nobody may change them then.
    """
    steps, batch = chunk.steps, config.training.batch_size
    with precision(config.training.precision):
        draws = counted_draws(config, epoch, chunk.first, part_order(steps, batch))
    given = [require_resident(config, chunk.images, of_a_set=True)]
    given += [require_labels(config, chunk.labels)] if config.network.classes else []
    images, *labels = (place_part(array, config, steps, batch) for array in given)
    return images, draws, *labels


def epoch_draws(config: Config, epoch: int, images: int, drawn: Draws | None = None) -> Draws:
    """The random numbers of epoch 0, 1, ... on the device: NumPy's, of counters their keys, or JAX's own.

    `drawn` are NumPy's, where they have been made already (see vae_common/data/ahead.py).
    """
    require_count("epoch", epoch)
    device, placement = device_for(config), placement_for(config)
    with precision(config.training.precision):
        if config.training.randomness == "native":
            with jax.default_device(device):
                own = _native_draws(config, epoch, images)
            return own if placement is device else jax.tree.map(lambda draw: put(to_numpy(draw), placement), own)
        if config.training.randomness == "counter":
            return _counted_draws(config, epoch, images)
        draws = drawn or randomness.epoch_draws(config, epoch, images)
        draws = draws._replace(noise=draws.noise.astype(config.training.dtype, copy=False))
        return Draws._make(None if draw is None else put(draw, placement) for draw in draws)


def draws_at(draws: Draws, step: int) -> Draws:
    """One step's entry of an epoch's random numbers."""
    return Draws._make(None if draw is None else draw[step] for draw in draws)


def step_draws(config: Config, draws: Draws, step: int) -> Draws:
    """The random numbers of one step of an epoch's."""
    with precision(config.training.precision):
        return made(config, draws_at(draws, step))


def made(config: Config, draw: Draws) -> Draws:
    """The random numbers of a step, of its entry of an epoch's; of several devices each makes its part."""
    if config.training.randomness != "counter":
        return split(draw)
    places = split(jnp.arange(len(draw.order), dtype=jnp.uint32))
    noise = normals(_words(draw.noise, places, config.noise_shape), config.training.dtype)
    bounds = None if draw.thresholds is None else thresholds(_words(draw.thresholds, places, config.image_shape))
    return Draws(split(draw.order), noise, bounds)


def _words(key: Array, places: Array, shape: tuple[int, ...]) -> Array:
    """32 random bits for each number of each image, (batch, *shape); the key's third word is the batch's place."""
    own = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    return bits(key[:2], (key[2] + places)[:, None], own[None]).reshape(-1, *shape)


def on_device(state: Any, images: Any, noise: Any, labels: Any) -> tuple[Any, Any, Any]:
    """Copies of NumPy arrays: what runs asynchronously must not read a buffer that is overwritten meanwhile."""
    config = state.config
    if state.seeds:
        raise InputError("state: received one of several seeds, expected a single one; train_epoch takes both")
    require_batch(config, images, noise, labels)
    placement, dtype = placement_for(config), config.training.dtype
    if isinstance(labels, np.ndarray):
        labels = put(labels.astype(np.int32), placement)
    return *(put(a.astype(dtype), placement) if isinstance(a, np.ndarray) else a for a in (images, noise)), labels


def _counted_draws(config, epoch, images):
    """The order, and of the rest each step's key and its place in the epoch: `made` makes the numbers of them."""
    batch = config.training.batch_size
    steps = randomness.steps_per_epoch(images, batch)
    key, places = randomness.key_words(config.seed, "order", epoch), np.arange(steps * batch, dtype=np.uint32)
    if config.data.block > 1:
        order = randomness.counted_order(config, epoch, places, images)
    else:
        order = to_numpy(permuted(jnp.asarray(key), jnp.asarray(places), images))
    return counted_draws(config, epoch, 0, order.reshape(steps, batch))


def counted_draws(config: Config, epoch: int, first: int, order: np.ndarray) -> Draws:
    """The draws of the steps from `first` on, of counters, that take these images, (steps, batch)."""
    batch, steps = config.training.batch_size, len(order)
    keys = {name: randomness.key_words(config.seed, name, epoch) for name in ("noise", "thresholds")}
    places = np.arange(first, first + steps, dtype=np.uint32)[:, None] * np.uint32(batch)
    rows = {name: np.concatenate([np.tile(key, (steps, 1)), places], 1) for name, key in keys.items()}
    binarized, placement = config.data.binarization == "dynamic", placement_for(config)
    bounds = put(rows["thresholds"], placement) if binarized else None
    return Draws(put(order.astype(np.int32), placement), put(rows["noise"], placement), bounds)


def _native_draws(config, epoch, images):
    batch = config.training.batch_size
    steps = randomness.steps_per_epoch(images, batch)
    high, low = divmod(config.seed, 2**32)
    words: Any = np.array([0, low], np.uint32)
    key = jax.random.wrap_key_data(words, impl="threefry2x32")  # whatever JAX's own default is
    seed = jax.random.fold_in(key, high)
    keys = jax.random.split(jax.random.fold_in(seed, epoch), 3)
    order = jax.random.permutation(keys[0], images)[: steps * batch].reshape(steps, batch)
    noise = jax.random.normal(keys[1], (steps, batch, *config.noise_shape), config.training.dtype)
    thresholds = None
    if config.data.binarization == "dynamic":
        thresholds = jax.random.randint(keys[2], (steps, batch, *config.image_shape), 0, 255, jnp.uint8)
    return Draws(order.astype(jnp.int32), noise, thresholds)
