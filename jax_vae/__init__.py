"""Autoencoders and variational autoencoders in JAX/Flax. Twin: torch_vae."""

from .device import (
    cache_programs,
    device_for,
    environment,
    execution_for,
    free_memory,
    peak_memory,
    precision,
    select_device,
    synchronize,
    to_device,
    to_numpy,
)
from .estimation import Marginal, log_marginal
from .execution import compile_epoch, train_epoch
from .fitting import fit
from .inference import decode, encode, evaluate, forward, interpolate, prepare_images, reconstruct, sample
from .likelihoods import (
    bernoulli,
    continuous_bernoulli,
    discretized_logistic,
    gaussian,
    optimal_gaussian,
    pixel_means,
    squared_error,
)
from .losses import gaussian_kl, log_ratio, log_weights, loss_terms, reconstruction_terms, tutorial_kl
from .models import CLASSES, Autoencoder, create_model, model_shapes
from .objectives import batch_loss
from .parallel import seed_configs, stack_states, state_draws, unstack_states
from .parameters import load_arrays, parameter_dtype, parameter_shapes, to_arrays
from .training import (
    State,
    apply_gradients,
    create_state,
    epoch_draws,
    gradients,
    lost_part,
    place_images,
    place_labels,
    state_from_arrays,
    state_to_arrays,
    train_step,
)

__all__ = [
    "Autoencoder",
    "Marginal",
    "State",
    "apply_gradients",
    "batch_loss",
    "bernoulli",
    "cache_programs",
    "compile_epoch",
    "continuous_bernoulli",
    "create_model",
    "create_state",
    "decode",
    "device_for",
    "discretized_logistic",
    "encode",
    "environment",
    "epoch_draws",
    "evaluate",
    "execution_for",
    "fit",
    "forward",
    "free_memory",
    "gaussian",
    "gaussian_kl",
    "gradients",
    "interpolate",
    "load_arrays",
    "log_marginal",
    "log_ratio",
    "log_weights",
    "loss_terms",
    "lost_part",
    "model_shapes",
    "optimal_gaussian",
    "parameter_dtype",
    "parameter_shapes",
    "peak_memory",
    "pixel_means",
    "place_images",
    "place_labels",
    "precision",
    "prepare_images",
    "reconstruct",
    "reconstruction_terms",
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
# jax_vae.VAE and all others that are registered
globals().update(CLASSES)
__all__ += list(CLASSES)
