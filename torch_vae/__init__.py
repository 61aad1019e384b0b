"""Autoencoders and variational autoencoders in PyTorch. Twin: jax_vae."""

from .device import environment, precision, select_device, synchronize
from .inference import decode, encode, evaluate, interpolate, prepare_images, reconstruct, sample
from .losses import bernoulli, gaussian_kl, loss_terms, pixel_means, squared_error, tutorial_kl
from .models import AE, VAE, Autoencoder, create_model
from .parameters import load_arrays, parameter_dtype, parameter_shapes, to_arrays
from .training import (
    State,
    create_state,
    epoch_draws,
    fit,
    place_images,
    state_from_arrays,
    state_to_arrays,
    train_epoch,
    train_step,
)

__all__ = [
    "AE",
    "VAE",
    "Autoencoder",
    "State",
    "bernoulli",
    "create_model",
    "create_state",
    "decode",
    "encode",
    "environment",
    "epoch_draws",
    "evaluate",
    "fit",
    "gaussian_kl",
    "interpolate",
    "load_arrays",
    "loss_terms",
    "parameter_dtype",
    "parameter_shapes",
    "pixel_means",
    "place_images",
    "precision",
    "prepare_images",
    "reconstruct",
    "sample",
    "select_device",
    "squared_error",
    "state_from_arrays",
    "state_to_arrays",
    "synchronize",
    "to_arrays",
    "train_epoch",
    "train_step",
    "tutorial_kl",
]
