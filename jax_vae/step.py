"""One step of training. Twin: torch_vae/step.py.

`train_step` takes numbers and not sources of them: every random draw is an argument. The state that it is
given is consumed; go on with the one it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax

from vae_common.contracts import Terms

from .batches import on_device
from .device import precision
from .distributed import split
from .meshes import as_placed, parameter_placement
from .objectives import batch_loss
from .optimizers import adam, averaged, clipped, followed
from .parameters import load_arrays, set_apart, to_arrays
from .state import State, update_count


def train_step(state: State, images: Any, noise: Any, labels: Any = None) -> tuple[State, Terms]:
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
        InputError: for other shapes or types, and for NumPy arrays that hold what is none (see
            vae_common/data/batches.py).
    """
    with precision(state.config.training.precision):
        return _jitted_step(state, *on_device(state, images, noise, labels))


def gradients(state: State, images: Any, noise: Any, labels: Any = None) -> tuple[dict[str, np.ndarray], Terms]:
    """The gradient of every parameter on a batch, as canonical arrays, and the batch's mean terms.

    Takes what `train_step` takes; the state is not consumed. `train_step` is this and `apply_gradients`.
    """
    with precision(state.config.training.precision):
        computed, terms = _jitted_gradients(state, *on_device(state, images, noise, labels))
        return to_arrays(computed), terms


def apply_gradients(state: State, arrays: Mapping[str, np.ndarray]) -> State:
    """One update by Adam with these gradients, canonical arrays; the state is consumed."""
    dtype, placement = state.config.training.dtype, parameter_placement(state.config)
    with precision(dtype):
        return _jitted_update(state, load_arrays(state.model, arrays, dtype, placement))


def batch_gradients(state: State, images: Any, noise: Any, labels: Any = None) -> tuple[Any, Terms]:
    """The gradients of the batch's loss, as the framework holds them, and its mean terms."""
    step = update_count(state)
    return jax.grad(batch_loss, has_aux=True)(state.model, state.config, images, noise, labels, step)


def updated(state: State, gradients: Any) -> State:
    """The state after Adam's update by these gradients: clipped first, averaged afterwards, as configured.

    Parameters that follow the batch move by what stands in place of their gradients.
    """
    gradients, changes = set_apart(gradients, state.config.followers)
    gradients = clipped(state.config, gradients)
    updates, optimizer = adam(state.config).update(gradients, state.optimizer, state.model)
    model = followed(optax.apply_updates(state.model, updates), changes)
    average = None if state.average is None else averaged(state.config, state.average, model)
    new = replace(state, model=model, optimizer=optimizer, average=average)
    return new if state.seeds else as_placed(state.config, new)


def one_step(state: State, images: Any, noise: Any, labels: Any = None) -> tuple[State, Terms]:
    """`train_step` on what lies on the device already."""
    gradients, means = batch_gradients(state, images, noise, labels)
    return updated(state, gradients), means


def _split_gradients(state, images, noise, labels=None):
    return batch_gradients(state, *split((images, noise, labels)))


def _split_step(state, images, noise, labels=None):
    return one_step(state, *split((images, noise, labels)))


_jitted_gradients = jax.jit(_split_gradients)
_jitted_update = jax.jit(updated, donate_argnums=0)
_jitted_step = jax.jit(_split_step, donate_argnums=0)
