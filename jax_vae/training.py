"""Training: the state, one step, its draws. Twin: torch_vae/training.py.

`train_step` takes numbers and not sources of them: every random draw is an argument. The state that it is
given is consumed (its buffers are donated); go on with the one it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vae_common import randomness
from vae_common.batches import require_batch, require_labels, require_resident
from vae_common.checkpoints import AVERAGE, FIRST, SECOND, STEP, check_state, part_of, weights_of
from vae_common.configs import Config, InputError, require_count
from vae_common.contracts import Terms
from vae_common.randomness import Draws

from .device import device_for, precision, to_device, to_numpy
from .models import Autoencoder, create_model, empty_model
from .objectives import batch_loss
from .optimizers import adam, averaged, clipped
from .parameters import load_arrays, parameter_shapes, to_arrays


@partial(
    jax.tree_util.register_dataclass, data_fields=["model", "optimizer", "average"], meta_fields=["config", "seeds"]
)
@dataclass
class State:
    """A model, Adam's two moments and step count, and the experiment that they belong to."""

    model: Autoencoder
    optimizer: Any
    config: Config = field(metadata={"static": True})
    average: Any = None
    """The model with the moving average of the weights, if the config keeps one."""
    seeds: tuple[int, ...] = field(default=(), metadata={"static": True})
    """Where given, several experiments at once: every array has a leading axis of seeds (see parallel.py)."""

    @property
    def step(self) -> int:
        """Updates so far."""
        return int(np.ravel(to_numpy(self.optimizer.count))[0])

    @property
    def evaluated(self) -> Autoencoder:
        """The model that evaluations use: the averaged one, where there is one."""
        return self.model if self.average is None else self.average


def create_state(config: Config, images: np.ndarray | None = None) -> State:
    """The experiment before its first step, on its device; equal in both halves.

    `images` are the training images; only an `output_bias` of `data_mean` reads them, and cannot do without.
    """
    model = create_model(config)
    if config.network.output_bias == "data_mean":
        seen = None if images is None else require_resident(config, images)
        biased = randomness.with_mean_bias(to_arrays(model), seen)
        model = load_arrays(model, biased, config.training.dtype, device_for(config))
    with precision(config.training.precision):
        average = jax.tree.map(jnp.copy, model) if config.optimizer.average else None
        return State(model, adam(config).init(model), config, average)


def train_step(state: State, images, noise, labels=None) -> tuple[State, Terms]:
    """One update on a batch.

    Args:
        state: consumed.
        images: what the model sees, in [0, 1], (batch, height, width, channels), of the state's dtype.
        noise: standard normal, (batch, *config.noise_shape): (batch, latent_dim) for a VAE, (batch, 0) for an AE.
        labels: integers (batch,) where the model is given classes.
            NumPy arrays are copied to the device first; write into them as soon as this returns.

    Returns:
        The next state, and the batch's terms before the update, each the mean per image.

    Raises:
        InputError: for other shapes or types, and for NumPy arrays that hold what is none (see vae_common/batches.py).
    """
    with precision(state.config.training.precision):
        return _jitted_step(state, *_on_device(state, images, noise, labels))


def gradients(state: State, images, noise, labels=None) -> tuple[dict[str, np.ndarray], Terms]:
    """The gradient of every parameter on a batch, as canonical arrays, and the batch's mean terms.

    Takes what `train_step` takes; the state is not consumed. `train_step` is this and `apply_gradients`.
    """
    with precision(state.config.training.precision):
        computed, terms = _jitted_gradients(state, *_on_device(state, images, noise, labels))
        return to_arrays(computed), terms


def apply_gradients(state: State, arrays: Mapping[str, np.ndarray]) -> State:
    """One update by Adam with these gradients, canonical arrays; the state is consumed."""
    dtype, device = state.config.training.dtype, device_for(state.config)
    with precision(dtype):
        return _jitted_update(state, load_arrays(state.model, arrays, dtype, device))


def place_images(images: np.ndarray, config: Config) -> jax.Array:
    """Images, uint8 from 0 to 255, bool or float32 in [0, 1], as they stay on the device for a whole fit."""
    return to_device(require_resident(config, images), device_for(config))


def place_labels(labels: np.ndarray, config: Config) -> jax.Array:
    """Labels as they stay on the device for a whole fit, where the model is given classes."""
    return to_device(require_labels(config, labels), device_for(config))


def epoch_draws(config: Config, epoch: int, images: int) -> Draws:
    """The random numbers of epoch 0, 1, ... on the device: NumPy's, or JAX's own if `native`."""
    require_count("epoch", epoch)
    device = device_for(config)
    with precision(config.training.precision):
        if config.training.randomness == "native":
            with jax.default_device(device):
                return _native_draws(config, epoch, images)
        draws = randomness.epoch_draws(config, epoch, images)
        draws = draws._replace(noise=draws.noise.astype(config.training.dtype))
        return Draws._make(None if draw is None else to_device(draw, device) for draw in draws)


def lost_part(state: State) -> str | None:
    """What of a state is not finite: its `weights`, `first moments`, `second moments` or `averaged weights`; or None.

    An infinite second moment shows in no loss: its parameter merely stands still.
    """
    optimizer = state.optimizer
    parts = {"weights": state.model, "first moments": optimizer.mu, "second moments": optimizer.nu}
    if state.average is not None:
        parts["averaged weights"] = state.average
    with precision(state.config.training.precision):
        finite = to_numpy(_all_finite(list(parts.values())))
    return next((name for name, found in zip(parts, finite) if not found), None)


def state_to_arrays(state: State) -> dict[str, np.ndarray]:
    """The state as a checkpoint's canonical arrays: weights, both moments, step."""
    parts = {FIRST: state.optimizer.mu, SECOND: state.optimizer.nu}
    if state.average is not None:
        parts[AVERAGE] = state.average
    arrays = to_arrays(state.model) | {STEP: np.array(state.step, np.int64)}
    for prefix, part in parts.items():
        arrays |= {prefix + name: array for name, array in to_arrays(part).items()}
    return arrays


def state_from_arrays(config: Config, arrays: Mapping[str, np.ndarray]) -> State:
    """The inverse of `state_to_arrays`, whichever half wrote them; InputError lists what does not fit."""
    dtype, device = config.training.dtype, device_for(config)
    with precision(dtype):
        model = empty_model(config)
        check_state(parameter_shapes(model), arrays, dtype, bool(config.optimizer.average))
        model = load_arrays(model, weights_of(arrays), dtype, device)
        first = load_arrays(model, part_of(arrays, FIRST), dtype, device)
        second = load_arrays(model, part_of(arrays, SECOND), dtype, device)
        optimizer = optax.ScaleByAdamState(jnp.asarray(arrays[STEP], jnp.int32), first, second)
        average = load_arrays(model, part_of(arrays, AVERAGE), dtype, device) if config.optimizer.average else None
        return State(model, optimizer, config, average)


def _on_device(state, images, noise, labels):
    """Copies of NumPy arrays: what runs asynchronously must not read a buffer that is overwritten meanwhile."""
    config = state.config
    if state.seeds:
        raise InputError("state: received one of several seeds, expected a single one; train_epoch takes both")
    require_batch(config, images, noise, labels)
    device, dtype = device_for(config), config.training.dtype
    if isinstance(labels, np.ndarray):
        labels = to_device(labels.astype(np.int32), device)
    return *(to_device(a.astype(dtype), device) if isinstance(a, np.ndarray) else a for a in (images, noise)), labels


def _gradients(state, images, noise, labels=None):
    step = state.optimizer.count
    return jax.grad(batch_loss, has_aux=True)(state.model, state.config, images, noise, labels, step)


def _update(state, gradients):
    gradients = clipped(state.config, gradients)
    updates, optimizer = adam(state.config).update(gradients, state.optimizer, state.model)
    model = optax.apply_updates(state.model, updates)
    average = None if state.average is None else averaged(state.config, state.average, model)
    return replace(state, model=model, optimizer=optimizer, average=average)


@jax.jit
def _all_finite(parts):
    return jnp.stack([jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(part)]).all() for part in parts])


def _step(state, images, noise, labels=None):
    gradients, means = _gradients(state, images, noise, labels)
    return _update(state, gradients), means


def _native_draws(config, epoch, images):
    batch = config.training.batch_size
    steps = randomness.steps_per_epoch(images, batch)
    high, low = divmod(config.seed, 2**32)
    key = jax.random.wrap_key_data(np.array([0, low], np.uint32), impl="threefry2x32")  # whatever JAX's own default is
    seed = jax.random.fold_in(key, high)
    keys = jax.random.split(jax.random.fold_in(seed, epoch), 3)
    order = jax.random.permutation(keys[0], images)[: steps * batch].reshape(steps, batch)
    noise = jax.random.normal(keys[1], (steps, batch, *config.noise_shape), config.training.dtype)
    thresholds = None
    if config.data.binarization == "dynamic":
        thresholds = jax.random.randint(keys[2], (steps, batch, *config.image_shape), 0, 255, jnp.uint8)
    return Draws(order.astype(jnp.int32), noise, thresholds)


_jitted_gradients = jax.jit(_gradients)
_jitted_update = jax.jit(_update, donate_argnums=0)
_jitted_step = jax.jit(_step, donate_argnums=0)
