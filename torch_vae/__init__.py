"""Autoencoders and variational autoencoders in PyTorch. Twin: jax_vae."""

from . import distributed
from .batches import epoch_draws, place_images, place_labels, prepare_images, step_draws
from .device import (
    cache_programs,
    device_for,
    environment,
    execution_for,
    free_memory,
    peak_memory,
    platform_of,
    precision,
    select_device,
    synchronize,
    to_device,
    to_numpy,
)
from .ensembles import seed_configs, stack_states, state_draws, unstack_states
from .estimation import Marginal, log_marginal
from .execution import compile_epoch, train_epoch
from .fitting import fit
from .inference import INFERENCE_BATCH, decode, encode, evaluate, forward, generate, interpolate, reconstruct, sample
from .layers import Autoencoder
from .likelihoods import (
    bernoulli,
    continuous_bernoulli,
    discretized_logistic,
    gaussian,
    linear_gaussian,
    optimal_gaussian,
    pixel_means,
    squared_error,
)
from .loading import Loaded, load, load_diffusers, save_diffusers
from .losses import gaussian_kl, log_ratio, log_weights, loss_terms, reconstruction_terms, tutorial_kl
from .models import AE, VAE, VQVAE, KLAutoencoder, LadderVAE, MixtureVAE, TwoLayerVAE, create_model, model_shapes
from .objectives import batch_loss
from .operations import ACTIVATIONS
from .parameters import load_arrays, parameter_dtype, parameter_shapes, parameter_starts, to_arrays
from .state import State, create_state, lost_part, state_from_arrays, state_to_arrays
from .step import apply_gradients, gradients, train_step

__all__ = [
    "ACTIVATIONS",
    "AE",
    "INFERENCE_BATCH",
    "VAE",
    "VQVAE",
    "Autoencoder",
    "Loaded",
    "Marginal",
    "KLAutoencoder",
    "LadderVAE",
    "MixtureVAE",
    "State",
    "TwoLayerVAE",
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
    "distributed",
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
    "generate",
    "gradients",
    "interpolate",
    "linear_gaussian",
    "load",
    "load_arrays",
    "load_diffusers",
    "log_marginal",
    "log_ratio",
    "log_weights",
    "loss_terms",
    "lost_part",
    "model_shapes",
    "optimal_gaussian",
    "parameter_dtype",
    "parameter_shapes",
    "parameter_starts",
    "peak_memory",
    "pixel_means",
    "platform_of",
    "place_images",
    "place_labels",
    "precision",
    "prepare_images",
    "reconstruct",
    "reconstruction_terms",
    "sample",
    "save_diffusers",
    "seed_configs",
    "select_device",
    "squared_error",
    "stack_states",
    "state_draws",
    "state_from_arrays",
    "state_to_arrays",
    "step_draws",
    "synchronize",
    "to_arrays",
    "to_device",
    "to_numpy",
    "train_epoch",
    "train_step",
    "tutorial_kl",
    "unstack_states",
]
