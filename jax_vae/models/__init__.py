"""The models, found through the registry. Twin: torch_vae/models/__init__.py."""

from __future__ import annotations

from functools import lru_cache

from flax import nnx

from vae_common import randomness
from vae_common.config import Config
from vae_common.config.registry import MODELS, find_class

from ..layers import Autoencoder
from ..meshes import parameter_placement, precision
from ..parameters import load_arrays, parameter_shapes, parameter_starts
from .ae import AE
from .kl_autoencoder import KLAutoencoder
from .ladder_vae import LadderVAE
from .mixture_vae import MixtureVAE
from .two_layer_vae import TwoLayerVAE
from .vae import VAE
from .vq_vae import VQVAE

__all__ = [
    "AE",
    "CLASSES",
    "VAE",
    "VQVAE",
    "KLAutoencoder",
    "LadderVAE",
    "MixtureVAE",
    "TwoLayerVAE",
    "create_model",
    "empty_model",
    "model_shapes",
]

CLASSES: dict[str, type[Autoencoder]] = {
    entry.class_name: find_class(__name__, name, Autoencoder) for name, entry in MODELS.items()
}
"""Every registered model's class, by its name."""


def create_model(config: Config) -> Autoencoder:
    """The experiment's model with its initial weights, in its dtype and on its device.

    Equal configs give equal weights in both halves: `vae_common.randomness` draws them.
    """
    model = empty_model(config)
    shapes, starts = parameter_shapes(model), parameter_starts(model)
    weights = randomness.initial_weights(shapes, config.seed, config.network.initializer, starts)
    return load_arrays(model, weights, config.training.dtype, parameter_placement(config))


@lru_cache(maxsize=64)  # Flax takes its time to make one, and nothing writes into it
def empty_model(config: Config) -> Autoencoder:
    """The experiment's model without values: what `load_arrays` fills."""
    architecture = CLASSES[MODELS[config.model].class_name]
    with precision(config.training.dtype):
        return nnx.eval_shape(lambda: architecture(config))


def model_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of the parameters of the experiment's model; nothing is allocated."""
    return parameter_shapes(empty_model(config))
