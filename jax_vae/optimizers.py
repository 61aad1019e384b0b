"""Adam and what surrounds it: step size, clipping, averaging of weights. Twin: torch_vae/optimizers.py."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vae_common.config import Config

from .device import Array


def adam(config: Config) -> optax.GradientTransformation:
    """Adam with the config's settings; its state holds `count`, `mu` and `nu`."""
    settings = config.optimizer
    directions = optax.scale_by_adam(settings.beta1, settings.beta2, settings.eps)

    def update(gradients, state, parameters=None):
        rate = learning_rate(config, state.count)
        updates, state = directions.update(gradients, state)
        return jax.tree.map(lambda update: -rate * update, updates), state

    return optax.GradientTransformation(directions.init, update)


def learning_rate(config: Config, step: Array) -> Any:
    """The step size of the update after that many (a scalar array): a number if it is constant, else an array."""
    settings = config.optimizer
    rate: Any = config.training.learning_rate
    if settings.schedule == "constant" and not settings.warmup_steps:
        return rate
    step = step.astype(config.training.dtype)
    if settings.schedule == "cosine":
        rate = rate * (1 + jnp.cos(math.pi * jnp.clip(step / settings.decay_steps, max=1))) / 2
    if settings.schedule == "exponential":
        rate = rate * settings.decay_rate ** (step / settings.decay_steps)
    if settings.warmup_steps:
        rate = rate * jnp.clip((step + 1) / settings.warmup_steps, max=1)
    return rate


def clipped(config: Config, gradients: Any) -> Any:
    """The gradients, scaled down where all of them together are longer than `clip_norm`."""
    most = config.optimizer.clip_norm
    if not most:
        return gradients
    norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients)))
    factor = jnp.where(norm > most, most / norm, 1)
    return jax.tree.map(lambda leaf: leaf * factor, gradients)


def followed(model: Any, changes: Any) -> Any:
    """The model after these changes of what follows the batch."""
    return model if changes is None else jax.tree.map(lambda leaf, change: leaf - change, model, changes)


def averaged(config: Config, average: Any, model: Any) -> Any:
    """The moving average of the weights after an update; it starts at the initial ones."""
    decay = config.optimizer.average
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, model)
