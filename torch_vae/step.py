"""One step of training. Twin: jax_vae/step.py.

`train_step` takes numbers and not sources of them: every random draw is an argument. The state that it is
given is consumed; go on with the one it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from vae_common.contracts import Terms, map_arrays

from .batches import on_device
from .device import device_for, precision, to_numpy
from .distributed import split
from .engines import as_parameter, engine, whole
from .models import empty_model
from .objectives import batch_loss
from .optimizers import averaged, clipped, followed
from .parameters import load_arrays, set_apart
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
        return one_step(state, *split(on_device(state, images, noise, labels)))


def gradients(state: State, images: Any, noise: Any, labels: Any = None) -> tuple[dict[str, np.ndarray], Terms]:
    """The gradient of every parameter on a batch, as canonical arrays, and the batch's mean terms.

    Takes what `train_step` takes; the state is not consumed. `train_step` is this and `apply_gradients`.
    """
    with precision(state.config.training.precision):
        computed, terms = batch_gradients(state, *split(on_device(state, images, noise, labels)))
        return {name: to_numpy(whole(computed[name])) for name in sorted(computed)}, terms


def apply_gradients(state: State, arrays: Mapping[str, np.ndarray]) -> State:
    """One update by Adam with these gradients, canonical arrays; the state is consumed."""
    dtype, device = state.config.training.dtype, device_for(state.config)
    with precision(dtype):
        given = load_arrays(empty_model(state.config), arrays, dtype, device)
        own = dict(state.model.named_parameters())
        return updated(state, {name: as_parameter(g, own[name]) for name, g in given.named_parameters()})


def batch_gradients(state: State, images: Any, noise: Any, labels: Any = None) -> tuple[Any, Terms]:
    """The gradients of the batch's loss, as the framework holds them, and its mean terms."""
    arguments, parameters = (state.config, images, noise, labels, update_count(state)), state.model.named_parameters()
    shared = engine(state.model, state.config)
    if shared is None:
        loss, means = batch_loss(state.model, *arguments)
        names, leaves = zip(*parameters)
        computed = dict(zip(names, torch.autograd.grad(loss, leaves, materialize_grads=True)))
    else:
        state.model.zero_grad()
        loss, means = shared(batch_loss, *arguments)
        loss.backward()
        computed = {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in parameters}
    return computed, map_arrays(torch.Tensor.detach, means)


def updated(state: State, gradients: Any) -> State:
    """The state after Adam's update by these gradients: clipped first, averaged afterwards, as configured.

    Parameters that follow the batch move by what stands in place of their gradients.
    """
    gradients, changes = set_apart(gradients, state.config.followers)
    clip = partial(clipped, state.config)
    gradients = torch.func.vmap(clip)(gradients) if state.seeds else clip(gradients)
    state.optimizer.step([gradients[name].detach().contiguous() for name, _ in state.model.named_parameters()])
    followed(state.model, changes)
    average = None if state.average is None else averaged(state.config, state.average, state.model)
    return replace(state, average=average)


def one_step(state: State, images: Any, noise: Any, labels: Any = None) -> tuple[State, Terms]:
    """`train_step` on what lies on the device already."""
    gradients, means = batch_gradients(state, images, noise, labels)
    return updated(state, gradients), means
