"""Using a model: NumPy in and out, any number of images. Twin: torch_vae/inference.py.

`images` are uint8, bool, or floats in [0, 1], of shape (N, height, width, channels), (N, height, width) for
one channel, or flat; anything else raises InputError. Work goes in batches of `INFERENCE_BATCH` images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from vae_common import randomness
from vae_common.config import Config
from vae_common.config.checks import require_count, require_seed
from vae_common.contracts import Outputs, Posterior, Terms, map_arrays
from vae_common.data.pixels import as_array, as_labels, as_numbers, as_unit_images
from vae_common.data.seen import as_evaluable, may_stay, parts_of
from vae_common.errors import InputError

from .batches import prepare_images
from .device import precision, synchronize, to_numpy
from .distributed import own_part, place_shared, shared
from .likelihoods import pixel_means
from .losses import log_prior, loss_terms
from .models import Autoencoder
from .parameters import dtype_of, parameter_dtype

INFERENCE_BATCH = 1000
"""Images at a time."""


def forward(model: Autoencoder, images: np.ndarray, noise: np.ndarray, labels: np.ndarray | None = None) -> Outputs:
    """Everything that a forward pass computes, as NumPy arrays; `noise` has shape (N[, samples], noise_dim).

    A layer's `prior` is here the log density of its latents under it, (N[, samples]), in nats.
    """
    images = as_unit_images(images, model.image_shape)
    labels, noise = as_labels(labels, model.classes, len(images)), as_numbers("noise", noise, parameter_dtype(model))
    if noise.shape[:1] + noise.shape[-1:] != (len(images), model.noise_dim) or noise.ndim not in (2, 3):
        raise InputError(f"noise: received shape {noise.shape}, expected ({len(images)}, {model.noise_dim})")
    return _in_batches(_forward, model, images, labels, noise)


def encode(model: Autoencoder, images: np.ndarray, labels: np.ndarray | None = None) -> Posterior:
    """The posterior's mean and log_std, (N, *latent_shape) each; an AE's code is `mean`, log_std None."""
    images = as_unit_images(images, model.image_shape)
    return _in_batches(_encode, model, images, as_labels(labels, model.classes, len(images)))


def decode(model: Autoencoder, latents: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Pixel means in [0, 1], (N, height, width, channels), of latents (N, *latent_shape)."""
    latents = as_numbers("latents", latents, parameter_dtype(model))
    if latents.shape[1:] != model.latent_shape or not latents.ndim:
        expected = ", ".join(map(str, model.latent_shape))
        raise InputError(f"latents: received shape {latents.shape}, expected (N, {expected})")
    labels = as_labels(labels, model.classes, len(latents))
    return _in_batches(_decode, model, latents, labels)


def reconstruct(model: Autoencoder, images: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """The decoded posterior means, in [0, 1]: no noise is drawn."""
    return decode(model, encode(model, images, labels).mean, labels)


def sample(model: Autoencoder, count: int, seed: int = 0, labels: np.ndarray | None = None) -> np.ndarray:
    """Decoded draws from the prior; made of the same noise in both halves.

    Where the model is given classes and there are no labels here, the images go through the classes in turn.
    """
    require_count("count", count)
    require_seed(seed)
    if model.classes and labels is None:
        labels = np.arange(count) % model.classes
    return generate(model, randomness.prior_samples(seed, count, model.prior_dim), labels)


def generate(model: Autoencoder, noise: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Decoded draws from the prior, (N, height, width, channels), made of standard-normal noise (N, prior_dim)."""
    noise = as_numbers("noise", noise, parameter_dtype(model))
    if noise.shape[1:] != (model.prior_dim,):
        raise InputError(f"noise: received shape {noise.shape}, expected (N, {model.prior_dim})")
    return decode(model, _in_batches(_generate, model, noise), labels)


def interpolate(
    model: Autoencoder,
    first: np.ndarray,
    second: np.ndarray,
    steps: int = 12,
    labels: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decoded points on the line between two images' posterior means, ends included.

    Takes one image each, (height, width, channels) or flat, and their labels where the model is given classes (all
    points are decoded with the first); returns (steps, height, width, channels).
    """
    require_count("steps", steps)
    own = as_labels(labels, model.classes, 2)
    ends = zip((as_array("first", first), as_array("second", second)), [None] * 2 if own is None else own[:, None])
    start, end = (encode(model, image[None], label).mean[0] for image, label in ends)
    fractions = np.linspace(0, 1, steps).reshape(-1, *[1] * start.ndim)
    points = start + fractions * (end - start)
    return decode(model, points, None if own is None else np.repeat(own[:1], steps))


def evaluate(model: Autoencoder, images: np.ndarray, config: Config, labels: np.ndarray | None = None) -> Terms:
    """Each image's total, reconstruction and KL, float64 (N,), from one posterior draw per image: the negative ELBO
    where beta is 1, whatever the objective was.

    Every image counts; several processes share them, and all have to call. Grey images of a binarized experiment are
    refused: they have to be binarized first (see `vae_common.data.seen.binarize`). The draws are fixed, so the result
    is a function of the weights. A stream, as `vae_common.data.seen.evaluated_by` gives it, is read part by part.
    """
    return evaluation_of(model, images, config, labels)(model)


def evaluation_of(
    model: Autoencoder, images: np.ndarray, config: Config, labels: np.ndarray | None = None, *, keep: bool = False
) -> Callable[[Autoencoder], Terms]:
    """`evaluate` of these images for one model after the other, all made as this one is; they are checked once.

    With `keep` they and their draws stay on the device, unless they are a stream or many.
    """
    if (config.latent_shape, config.noise_dim) != (model.latent_shape, model.noise_dim):
        expected = f"the model's {model.latent_shape}"
        raise InputError(f"config: received latents of shape {config.latent_shape}, expected {expected}")
    images = as_evaluable(images, config, model.image_shape, model.reconstruction)
    labels, function = as_labels(labels, model.classes, len(images)), partial(_evaluate, loss=config.loss)
    keep = keep and may_stay(images, config.noise_dim)
    kept: list[Any] = []

    def parts(model):
        rng = randomness.evaluation_generator()
        for part in parts_of(images, INFERENCE_BATCH):
            count = part.stop - part.start
            noise = randomness.evaluation_noise(count, config.noise_dim, rng).astype(parameter_dtype(model))
            own = own_part(count)
            rows = slice(part.start + own.start, part.start + own.stop)
            yield count, place_shared(model, count, images[rows], None if labels is None else labels[rows], noise[own])

    def evaluated(model):
        with precision(parameter_dtype(model)):
            if keep and not kept:
                kept.extend(parts(model))
            terms: list[Any] = []
            for count, placed in kept or parts(model):
                terms.append(shared(function, model, count, *placed))
                if not kept:
                    synchronize(terms[-2:-1])  # no more lies on the device than is computed on, and the next part
            return map_arrays(lambda *of: np.concatenate([to_numpy(array) for array in of]).astype(np.float64), *terms)

    return evaluated


@jax.jit
def _forward(model, images, labels, noise):
    outputs = model(prepare_images(images, None, dtype_of(model)), noise, labels)
    return outputs._replace(layers=tuple(layer._replace(prior=log_prior(layer)) for layer in outputs.layers))


@jax.jit
def _encode(model, images, labels):
    return model.encode(prepare_images(images, None, dtype_of(model)), labels)


@jax.jit
def _decode(model, latents, labels):
    return pixel_means(model.decode(latents, labels), model.reconstruction)


@jax.jit
def _generate(model, noise):
    return model.generate(noise)


@partial(jax.jit, static_argnames="loss")
def _evaluate(model, images, labels, noise, loss):
    images = prepare_images(images, None, dtype_of(model))
    return loss_terms(loss, model(images, noise, labels), images)


def _in_batches(function, model, *arrays):
    """Calls it on slices of the arrays; joins its results, each an array or (nested) tuples of them and None."""
    with precision(parameter_dtype(model)):
        parts = [slice(i, i + INFERENCE_BATCH) for i in range(0, max(len(arrays[0]), 1), INFERENCE_BATCH)]
        results = [function(model, *(None if a is None else a[part] for a in arrays)) for part in parts]
        return map_arrays(lambda *results: np.concatenate(results), *results)
