"""The marginal likelihood, by importance sampling. Twin: torch_vae/estimation.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_common import randomness
from vae_common.config import Config
from vae_common.config.checks import require_count
from vae_common.data.batches import require_evaluable
from vae_common.data.pixels import as_labels, as_unit_images

from .batches import prepare_images
from .device import precision
from .losses import log_weights
from .models import Autoencoder
from .parameters import dtype_of, parameter_dtype

IMAGES, DRAWS = 50, 100  # at a time


class Marginal(NamedTuple):
    """Importance-weighted estimates of each image's marginal likelihood, float64 (N,)."""

    log_likelihood: np.ndarray
    """log of the mean importance weight, in nats (Burda et al. 2016, eq. 8): on average a lower bound."""
    error: np.ndarray
    """Its standard error over the draws, in nats, to first order: the weights' own over their mean."""


def log_marginal(
    model: Autoencoder,
    images: np.ndarray,
    config: Config,
    samples: int = 5000,
    labels: np.ndarray | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Marginal:
    """log p(images) of each image, from that many draws of its posterior.

    `on_batch` is told after each batch how many images it had: it may take long.

    Memory does not grow with `samples`: the weights are summed as they are drawn. The draws are fixed, and the same in
    both halves. InputError where the model draws nothing, or where the reconstruction is no likelihood of these images.
    """
    config.require_marginal()
    require_count("samples", samples, 1)
    images = as_unit_images(images, model.image_shape)
    labels = as_labels(labels, model.classes, len(images))
    require_evaluable(config, model.reconstruction, images)
    dtype, chunks = parameter_dtype(model), [(s, min(DRAWS, samples - s)) for s in range(0, samples, DRAWS)]
    found = []
    with precision(dtype):
        for first in range(0, len(images), IMAGES):
            batch = images[first : first + IMAGES]
            own = None if labels is None else labels[first : first + IMAGES]
            sums = (np.full(len(batch), -np.inf, dtype), *np.zeros((2, len(batch)), dtype))
            for start, drawn in chunks:
                noise = randomness.marginal_noise(first, start, (len(batch), drawn, model.noise_dim)).astype(dtype)
                sums = _add(model, batch, own, noise, sums, loss=config.loss)
            if on_batch is not None:
                on_batch(len(batch))
            found.append(np.stack([np.asarray(part, np.float64) for part in sums]))
    most, total, squares = np.concatenate(found, 1)
    relative = np.maximum(samples * squares / total**2 - 1, 0)  # variance of the weights over their squared mean
    return Marginal(most + np.log(total / samples), np.sqrt(relative / samples))


@partial(jax.jit, static_argnames="loss")
def _add(model, images, labels, noise, sums, loss):
    """The largest log weight so far, and the sums of weights and of their squares in units of it, with new draws."""
    (most, total, squares), images = sums, prepare_images(images, None, dtype_of(model))
    outputs = model(images, noise, labels)
    weights = log_weights(loss, outputs, images)
    now = jnp.maximum(most, weights.max(1))
    weights, before = jnp.exp(weights - now[:, None]), jnp.exp(most - now)
    return now, total * before + weights.sum(1), squares * before**2 + (weights**2).sum(1)
