"""Using a model: NumPy in and out, any number of images. Twin: torch_vae/inference.py.

`images` are uint8 or floats in [0, 1], of shape (N, height, width, channels), (N, height, width) for
one channel, or flat; anything else raises InputError. Work goes in batches of `BATCH` images.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vae_common import randomness
from vae_common.configs import Config, InputError, require_count
from vae_common.contracts import Outputs, Posterior, Terms
from vae_common.datasets import as_unit_images

from .device import precision
from .losses import loss_terms, pixel_means
from .models import Autoencoder
from .parameters import parameter_dtype

BATCH = 1000


def prepare_images(images, thresholds, dtype):
    """What the model sees of images on the device: uint8 goes to [0, 1], floats stay as they are.

    With `thresholds` (uint8, the images' shape) a pixel is 1 where it exceeds its own, else 0.
    """
    if thresholds is not None:
        return (images > thresholds).astype(dtype)
    return images.astype(dtype) / 255 if images.dtype == jnp.uint8 else images.astype(dtype)


def forward(model: Autoencoder, images: np.ndarray, noise: np.ndarray) -> Outputs:
    """Everything that a forward pass computes, as NumPy arrays; `noise` has shape (N, noise_dim)."""
    images = as_unit_images(images, model.decoder.image_shape)
    if noise.shape not in ((len(images), model.decoder.latent_dim), (len(images), 0)):
        raise InputError(f"noise: received shape {noise.shape}, expected ({len(images)}, {model.decoder.latent_dim})")
    logits, mean, log_std, latents = _in_batches(_forward, model, images, noise.astype(parameter_dtype(model)))
    return Outputs(logits, Posterior(mean, log_std), latents)


def encode(model: Autoencoder, images: np.ndarray) -> Posterior:
    """The posterior's mean and log_std, (N, latent_dim) each; an AE's code is `mean`, log_std None."""
    images = as_unit_images(images, model.decoder.image_shape)
    mean, log_std = _in_batches(_encode, model, images)
    return Posterior(mean, log_std)


def decode(model: Autoencoder, latents: np.ndarray) -> np.ndarray:
    """Pixel means in [0, 1], (N, height, width, channels), of latents (N, latent_dim)."""
    latents = np.asarray(latents)
    latent_dim = model.decoder.latent_dim
    if latents.ndim != 2 or latents.shape[1] != latent_dim:
        raise InputError(f"latents: received shape {latents.shape}, expected (N, {latent_dim})")
    return _in_batches(_decode, model, latents.astype(parameter_dtype(model)))


def reconstruct(model: Autoencoder, images: np.ndarray) -> np.ndarray:
    """The decoded posterior means, in [0, 1]: no noise is drawn."""
    return decode(model, encode(model, images).mean)


def sample(model: Autoencoder, count: int, seed: int = 0) -> np.ndarray:
    """Decoded draws from the standard-normal prior; the same latents in both halves."""
    require_count("count", count)
    require_count("seed", seed)
    return decode(model, randomness.prior_samples(seed, count, model.decoder.latent_dim))


def interpolate(model: Autoencoder, first: np.ndarray, second: np.ndarray, steps: int = 12) -> np.ndarray:
    """Decoded points on the line between two images' posterior means, ends included.

    Takes one image each, (height, width, channels) or flat; returns (steps, height, width, channels).
    """
    require_count("steps", steps)
    start, end = (encode(model, np.asarray(image)[None]).mean[0] for image in (first, second))
    return decode(model, start + np.linspace(0, 1, steps)[:, None] * (end - start))


def evaluate(model: Autoencoder, images: np.ndarray, config: Config) -> Terms:
    """Each image's total, reconstruction and KL, float64 (N,), from one posterior draw per image.

    Every image counts. Grey images of a binarized experiment have to be binarized first (see
    `datasets.binarize`). The draws are fixed, so the result is a function of the weights.
    """
    images = as_unit_images(images, model.decoder.image_shape)
    if config.network.latent_dim != model.decoder.latent_dim:
        expected = f"the model's {model.decoder.latent_dim}"
        raise InputError(f"config: received latent_dim {config.network.latent_dim}, expected {expected}")
    if not len(images):
        raise InputError("images: received none, expected at least one")
    noise = randomness.evaluation_noise(len(images), config.noise_dim).astype(parameter_dtype(model))
    terms = _in_batches(partial(_evaluate, loss=config.loss), model, images, noise)
    return Terms(*(np.asarray(term, np.float64) for term in terms))


@jax.jit
def _forward(model, images, noise):
    outputs = model(prepare_images(images, None, _dtype(model)), noise)
    return outputs.logits, *outputs.posterior, outputs.latents


@jax.jit
def _encode(model, images):
    return tuple(model.encode(prepare_images(images, None, _dtype(model))))


@jax.jit
def _decode(model, latents):
    return pixel_means(model.decode(latents))


@partial(jax.jit, static_argnames="loss")
def _evaluate(model, images, noise, loss):
    images = prepare_images(images, None, _dtype(model))
    return tuple(loss_terms(loss, model(images, noise), images))


def _dtype(model):
    return jax.tree.leaves(model)[0].dtype


def _in_batches(function, model, *arrays):
    """Calls it on slices of the arrays; joins its results, each an array, a tuple of them or None."""
    with precision(parameter_dtype(model)):
        starts = range(0, max(len(arrays[0]), 1), BATCH)
        results = [function(model, *(a[i : i + BATCH] for a in arrays)) for i in starts]
        if isinstance(results[0], tuple):
            return tuple(None if p[0] is None else np.concatenate(p) for p in zip(*results))
        return np.concatenate(results)
