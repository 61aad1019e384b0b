"""The ladder VAE in float64 NumPy, layer by layer from the top."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import autograd.numpy as np

from vae_common.config import Config
from vae_common.contracts import Posterior, StochasticLayer
from vae_common.reference import networks
from vae_common.reference.distributions import Normal
from vae_common.reference.networks import Weights, dense, dense_shapes, encoder, linear

Shapes = dict[str, tuple[int, ...]]


def shapes(config: Config) -> Shapes:
    """Canonical name -> canonical shape of every parameter."""
    network = config.network
    width, hidden, latents = network.ladder_width, (network.ladder_hidden,), network.latent_dim
    found = networks.shapes(config, ("features",), width) | {"top": (width,)}
    for i in range(network.ladder_layers - 1):
        found |= dense_shapes(f"upward.{i}", width, hidden, ("out",), width)
    for i in range(network.ladder_layers):
        name = f"ladder.{i}"
        found |= dense_shapes(f"{name}.prior", width, hidden, ("mean", "log_std"), latents)
        found |= dense_shapes(f"{name}.prior", width, hidden, ("residual",), width)
        found |= dense_shapes(f"{name}.posterior", 2 * width, hidden, ("mean", "log_std"), latents)
        found |= {f"{name}.expand.weight": (width, latents), f"{name}.expand.bias": (width,)}
        found |= dense_shapes(f"{name}.mix", width, hidden, ("out",), width)
    return found


def layers(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> list[StochasticLayer]:
    """Of images in [0, 1] and their noise, (batch[, samples], layers * latent_dim)."""
    count, found = config.network.ladder_layers, []
    upward = [linear(weights, "encoder.features", encoder(config, weights, images, labels))]
    for i in range(count - 1):
        upward.append(upward[-1] + _share(config) * _block(config, weights, f"upward.{i}", upward[-1])("out"))

    def draw(place: int, prior: Normal, state: Any) -> Any:
        features = upward[count - 1 - place]
        features = features[:, None] * np.ones(state.shape) if state.ndim > features.ndim else features
        read = _block(config, weights, f"ladder.{place}.posterior", np.concatenate([state, features], -1))
        log_std = prior.log_std + read("log_std") / _scale(config)
        posterior = Posterior(prior.mean + read("mean"), log_std)
        own = _part(config, noise, place)
        latents = drawn(posterior.mean, own) + drawn(np.exp(posterior.log_std), own) * own
        found.append(StochasticLayer(posterior, prior, latents, own))
        return latents

    _down(config, weights, len(images), draw)
    return found


def decoder(config: Config, weights: Weights, latents: Any, labels: Any) -> Any:
    """Logits of the pixels, of the latents of all layers."""
    state = _down(config, weights, len(latents), lambda place, prior, state: _part(config, latents, place))
    return networks.decoder(config, weights, state, labels)


def generate(config: Config, weights: Weights, noise: Any) -> Any:
    """The latents of all layers, drawn from the top on, of standard-normal noise."""
    found: list[Any] = []

    def draw(place: int, prior: Normal, state: Any) -> Any:
        found.append(prior.sample(_part(config, noise, place)))
        return found[-1]

    _down(config, weights, len(noise), draw)
    return np.concatenate(found, -1)


def drawn(array: Any, noise: Any) -> Any:
    """An array of images as one of the draws of each, where the noise has several."""
    return array[:, None] * np.ones((1, noise.shape[1], 1)) if noise.ndim > array.ndim else array


def _down(config: Config, weights: Weights, count: int, draw: Callable[[int, Normal, Any], Any]) -> Any:
    """The state below the last layer; `draw` is given each layer's place, prior and the state above it."""
    state = np.ones((count, 1)) * weights["top"]
    for place in range(config.network.ladder_layers):
        read = _block(config, weights, f"ladder.{place}.prior", state)
        prior = Normal(read("mean"), read("log_std") / _scale(config))
        state = state + _share(config) * read("residual")
        latents = draw(place, prior, state)
        state = drawn(state, latents) + linear(weights, f"ladder.{place}.expand", latents)
        state = state + _share(config) * _block(config, weights, f"ladder.{place}.mix", state)("out")
    return state


def _block(config: Config, weights: Weights, name: str, features: Any) -> Callable[[str], Any]:
    """Its heads, by name."""
    inner = dense(config, weights, name, features, 1)
    return lambda head: linear(weights, f"{name}.{head}", inner)


def _part(config: Config, flat: Any, place: int) -> Any:
    latents = config.network.latent_dim
    return flat[..., place * latents : (place + 1) * latents]


def _share(config: Config) -> float:
    return 0.5 / math.sqrt(config.network.ladder_layers)


def _scale(config: Config) -> int:
    return 2 if config.network.posterior_head == "log_variance" else 1
