"""The models, found through the registry. Twin: jax_vae/models/__init__.py."""

from __future__ import annotations

import importlib

import torch

from vae_common import randomness
from vae_common.configs import MODELS, Config

from ..device import device_for, precision
from ..parameters import load_arrays, parameter_shapes
from .ae import AE
from .networks import Autoencoder
from .vae import VAE

__all__ = ["AE", "VAE", "Autoencoder", "create_model"]


def create_model(config: Config) -> Autoencoder:
    """The experiment's model with its initial weights, in its dtype and on its device.

    Equal configs give equal weights in both halves: `vae_common.randomness` draws them.
    """
    model = empty_model(config)
    weights = randomness.initial_weights(parameter_shapes(model), config.seed)
    return load_arrays(model, weights, config.training.dtype, device_for(config))


def empty_model(config: Config) -> Autoencoder:
    """The experiment's model without values: what `load_arrays` fills."""
    module = importlib.import_module(f"{__name__}.{config.model}")
    architecture = getattr(module, MODELS[config.model].class_name)
    with precision(config.training.dtype), torch.device("meta"):
        return architecture(config)
