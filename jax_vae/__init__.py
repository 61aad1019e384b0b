"""Autoencoders and variational autoencoders in JAX/Flax. Twin: torch_vae."""

from .device import (
    cache_programs,
    device_for,
    environment,
    execution_for,
    peak_memory,
    precision,
    select_device,
    synchronize,
    to_device,
    to_numpy,
)
from .execution import compile_epoch, train_epoch
from .fitting import fit
from .inference import decode, encode, evaluate, forward, interpolate, prepare_images, reconstruct, sample
from .losses import bernoulli, gaussian_kl, loss_terms, pixel_means, squared_error, tutorial_kl
from .models import AE, VAE, Autoencoder, create_model
from .parallel import seed_configs, stack_states, state_draws, unstack_states
from .parameters import load_arrays, parameter_dtype, parameter_shapes, to_arrays
from .training import (
    State,
    apply_gradients,
    create_state,
    epoch_draws,
    gradients,
    place_images,
    state_from_arrays,
    state_to_arrays,
    train_step,
)

__all__ = [
    "AE",
    "VAE",
    "Autoencoder",
    "State",
    "apply_gradients",
    "bernoulli",
    "cache_programs",
    "compile_epoch",
    "create_model",
    "create_state",
    "decode",
    "device_for",
    "encode",
    "environment",
    "epoch_draws",
    "evaluate",
    "execution_for",
    "fit",
    "forward",
    "gaussian_kl",
    "gradients",
    "interpolate",
    "load_arrays",
    "loss_terms",
    "parameter_dtype",
    "parameter_shapes",
    "peak_memory",
    "pixel_means",
    "place_images",
    "precision",
    "prepare_images",
    "reconstruct",
    "sample",
    "seed_configs",
    "select_device",
    "squared_error",
    "stack_states",
    "state_draws",
    "state_from_arrays",
    "state_to_arrays",
    "synchronize",
    "to_arrays",
    "to_device",
    "to_numpy",
    "train_epoch",
    "train_step",
    "tutorial_kl",
    "unstack_states",
]
