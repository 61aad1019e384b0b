"""Training: the state, one step, one epoch, a whole fit. Twin: torch_vae/training.py.

`train_step` and `train_epoch` take numbers and not sources of them: every random draw is an argument.
The state that they are given is consumed (its buffers are donated); go on with the one they return.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vae_common import randomness
from vae_common.checkpoints import FIRST, SECOND, STEP, check_state, part_of, weights_of
from vae_common.configs import Config
from vae_common.contracts import Terms
from vae_common.datasets import Dataset, evaluation_images, training_images
from vae_common.randomness import Draws
from vae_common.records import EpochRecord, NonFiniteLoss, epoch_record

from .device import precision, select_device, synchronize, to_device
from .inference import evaluate, prepare_images
from .losses import loss_terms
from .models import Autoencoder, create_model, empty_model
from .parameters import load_arrays, parameter_shapes, to_arrays


@partial(jax.tree_util.register_dataclass, data_fields=["model", "optimizer"], meta_fields=["config"])
@dataclass
class State:
    """A model, Adam's two moments and step count, and the experiment that they belong to."""

    model: Autoencoder
    optimizer: Any
    config: Config = field(metadata={"static": True})

    @property
    def step(self) -> int:
        """Updates so far."""
        return int(self.optimizer[0].count)


def create_state(config: Config) -> State:
    """The experiment before its first step, on its device; equal in both halves."""
    model = create_model(config)
    with precision(config.training.dtype):
        return State(model, _adam(config).init(model), config)


def train_step(state: State, images, noise) -> tuple[State, Terms]:
    """One update on a batch.

    Args:
        state: consumed.
        images: what the model sees, in [0, 1], (batch, height, width, channels), of the state's dtype.
        noise: standard normal, (batch, noise_dim): (batch, latent_dim) for a VAE, (batch, 0) for an AE.
            NumPy arrays are copied to the device first; write into them as soon as this returns.

    Returns:
        The next state, and the batch's terms before the update, each the mean per image.
    """
    with precision(state.config.training.dtype):
        return _jitted_step(state, *_on_device(state.config, images, noise))


def train_epoch(state: State, images, draws: Draws) -> tuple[State, Terms]:
    """One pass over resident images: one compiled program, one scan over its steps.

    Args:
        state: consumed.
        images: uint8 on the device, (N, height, width, channels), from `place_images`.
        draws: the epoch's order, noise and thresholds, from `epoch_draws`.

    Returns:
        The next state, and every step's terms, (steps,) each, the mean per image.
    """
    with precision(state.config.training.dtype):
        return _jitted_epoch(state, images, draws)


def gradients(state: State, images, noise) -> tuple[dict[str, np.ndarray], Terms]:
    """The gradient of every parameter on a batch, as canonical arrays, and the batch's mean terms.

    Takes what `train_step` takes; the state is not consumed. `train_step` is this and `apply_gradients`.
    """
    with precision(state.config.training.dtype):
        computed, terms = _jitted_gradients(state, *_on_device(state.config, images, noise))
        return to_arrays(computed), terms


def apply_gradients(state: State, arrays: Mapping[str, np.ndarray]) -> State:
    """One update by Adam with these gradients, canonical arrays; the state is consumed."""
    dtype, device = state.config.training.dtype, select_device(state.config.training.device)
    with precision(dtype):
        return _jitted_update(state, load_arrays(state.model, arrays, dtype, device))


def place_images(images: np.ndarray, config: Config) -> jax.Array:
    """uint8 images as they stay on the device for a whole fit."""
    return to_device(images, select_device(config.training.device))


def epoch_draws(config: Config, epoch: int, images: int) -> Draws:
    """The random numbers of epoch 0, 1, ... on the device: NumPy's, or JAX's own if `native`."""
    device = select_device(config.training.device)
    with precision(config.training.dtype):
        if config.training.randomness == "native":
            with jax.default_device(device):
                return _native_draws(config, epoch, images)
        draws = randomness.epoch_draws(config, epoch, images)
        draws = draws._replace(noise=draws.noise.astype(config.training.dtype))
        return Draws._make(None if draw is None else to_device(draw, device) for draw in draws)


def fit(state: State, dataset: Dataset, *, on_epoch: Callable[[State, EpochRecord], None] | None = None) -> State:
    """Trains from wherever the state stands to the config's last epoch.

    Args:
        state: consumed.
        dataset: its validation split, or else its test split, is evaluated after every epoch.
        on_epoch: called with the state and the record of each finished epoch.

    Raises:
        NonFiniteLoss: with epoch and step; its `state` is the one before the epoch where it happened.
    """
    config = state.config
    dataset.require_shape(config.image_shape)
    images = place_images(training_images(dataset, config.data.binarization), config)
    split, held_out = evaluation_images(dataset, config.data.binarization)
    steps = randomness.steps_per_epoch(len(images), config.training.batch_size)
    for epoch in range(state.step // steps, config.training.epochs):
        draws = epoch_draws(config, epoch, len(images))
        last_good = _copy(state)
        synchronize(draws)  # the clock sees the steps alone, not the draws
        start = time.perf_counter()
        state, terms = train_epoch(state, images, draws)
        terms = Terms(*(np.asarray(term, np.float64) for term in terms))  # the epoch's only wait
        seconds = time.perf_counter() - start
        evaluation = evaluate(state.model, held_out, config)
        try:
            record = epoch_record(epoch, config, terms, split, evaluation, seconds)
        except NonFiniteLoss as error:
            error.state = last_good
            raise
        if on_epoch is not None:
            on_epoch(state, record)
    return state


def state_to_arrays(state: State) -> dict[str, np.ndarray]:
    """The state as a checkpoint's canonical arrays: weights, both moments, step."""
    adam = state.optimizer[0]
    first = {FIRST + name: array for name, array in to_arrays(adam.mu).items()}
    second = {SECOND + name: array for name, array in to_arrays(adam.nu).items()}
    return to_arrays(state.model) | first | second | {STEP: np.array(state.step, np.int64)}


def state_from_arrays(config: Config, arrays: Mapping[str, np.ndarray]) -> State:
    """The inverse of `state_to_arrays`, whichever half wrote them; InputError lists what does not fit."""
    dtype, device = config.training.dtype, select_device(config.training.device)
    with precision(dtype):
        model = empty_model(config)
        check_state(parameter_shapes(model), arrays, dtype)
        model = load_arrays(model, weights_of(arrays), dtype, device)
        adam, *rest = _adam(config).init(model)
        adam = adam._replace(
            count=jnp.asarray(arrays[STEP], adam.count.dtype),
            mu=load_arrays(adam.mu, part_of(arrays, FIRST), dtype, device),
            nu=load_arrays(adam.nu, part_of(arrays, SECOND), dtype, device),
        )
        return State(model, (adam, *rest), config)


def _on_device(config, *arrays):
    """Copies of NumPy arrays: what runs asynchronously must not read a buffer that is overwritten meanwhile."""
    device, dtype = select_device(config.training.device), config.training.dtype
    return (to_device(a.astype(dtype), device) if isinstance(a, np.ndarray) else a for a in arrays)


def _copy(state):
    with precision(state.config.training.dtype):
        return jax.tree.map(jnp.copy, state)


def _adam(config):
    return optax.adam(config.training.learning_rate)


def _gradients(state, images, noise):
    def batch_loss(model):
        terms = loss_terms(state.config.loss, model(images, noise), images)
        means = Terms(*(term.mean() for term in terms))
        loss = means.total if state.config.loss.reduction == "mean" else terms.total.sum()
        return loss, means

    return jax.grad(batch_loss, has_aux=True)(state.model)


def _update(state, gradients):
    updates, optimizer = _adam(state.config).update(gradients, state.optimizer, state.model)
    return State(optax.apply_updates(state.model, updates), optimizer, state.config)


def _step(state, images, noise):
    gradients, means = _gradients(state, images, noise)
    return _update(state, gradients), means


def _epoch(state, images, draws):
    def body(state, draw):
        batch = prepare_images(images[draw.order], draw.thresholds, state.config.training.dtype)
        return _step(state, batch, draw.noise)

    return jax.lax.scan(body, state, draws)


def _native_draws(config, epoch, images):
    batch = config.training.batch_size
    steps = randomness.steps_per_epoch(images, batch)
    high, low = divmod(config.seed, 2**32)
    seed = jax.random.fold_in(jax.random.key(np.uint32(low)), high)
    keys = jax.random.split(jax.random.fold_in(seed, epoch), 3)
    order = jax.random.permutation(keys[0], images)[: steps * batch].reshape(steps, batch)
    noise = jax.random.normal(keys[1], (steps, batch, config.noise_dim), config.training.dtype)
    thresholds = None
    if config.data.binarization == "dynamic":
        thresholds = jax.random.randint(keys[2], (steps, batch, *config.image_shape), 0, 255, jnp.uint8)
    return Draws(order.astype(jnp.int32), noise, thresholds)


_jitted_gradients = jax.jit(_gradients)
_jitted_update = jax.jit(_update, donate_argnums=0)
_jitted_step = jax.jit(_step, donate_argnums=0)
_jitted_epoch = jax.jit(_epoch, donate_argnums=0)
