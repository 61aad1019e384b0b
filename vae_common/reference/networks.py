"""Encoders and decoders in float64 NumPy, for reference/model.py. Images and features have their channels last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import autograd.numpy as np
from autograd.scipy import special, stats

from vae_common.config import Config

Weights = Mapping[str, Any]


def shapes(config: Config, heads: tuple[str, ...] = (), width: int = 0) -> dict[str, tuple[int, ...]]:
    """Canonical name -> canonical shape of the encoder's and the decoder's parameters.

    `heads` are the encoder's, by default those of a Gaussian, or of a code. `width` is theirs, and what the decoder
    reads; by default latent_dim.
    """
    network = config.network
    latent_dim, found = width or network.latent_dim, {}
    heads = heads or (("mean", "log_std") if config.entry.draws else ("code",))

    def layer(name: str, inputs: int, outputs: int, transposed: bool = False, kernel: tuple[int, ...] = ()) -> None:
        sides = (inputs, outputs) if transposed else (outputs, inputs)
        found[f"{name}.weight"], found[f"{name}.bias"] = (*sides, *kernel), (outputs,)

    deep, channels = config.image_shape[2], network.channels
    for i, (a, b) in enumerate(zip((deep, *channels), channels)):
        layer(f"encoder.convolutions.{i}", a, b, kernel=(4, 4))
    grid = math.prod(config.grid_shape)
    found |= dense_shapes("encoder", grid + network.classes, network.hidden, heads, latent_dim)
    head = "grid" if channels else "logits"
    found |= dense_shapes("decoder", latent_dim + network.classes, network.hidden[::-1], (head,), grid)
    names = (*(f"decoder.deconvolutions.{i}" for i in range(len(channels) - 1)), "decoder.logits")
    for name, a, b in zip(names, channels[::-1], (*channels[-2::-1], deep)):
        layer(name, a, b, transposed=True, kernel=(4, 4))
    return found


def dense_shapes(
    part: str, width: int, hidden: tuple[int, ...], heads: tuple[str, ...], outputs: int
) -> dict[str, tuple[int, ...]]:
    """Of dense layers one after the other, and heads that read the last."""
    found: dict[str, tuple[int, ...]] = {}
    for i, after in enumerate(hidden):
        found |= {f"{part}.hidden.{i}.weight": (after, width), f"{part}.hidden.{i}.bias": (after,)}
        width = after
    for head in heads:
        found |= {f"{part}.{head}.weight": (outputs, width), f"{part}.{head}.bias": (outputs,)}
    return found


def convolved(config: Config, weights: Weights, images: Any) -> Any:
    """What the encoder's convolutions make of images, (batch, *grid_shape)."""
    features = images.reshape(len(images), *config.image_shape)
    below, right = (-side % config.stride for side in config.image_shape[:2])
    features = np.pad(features, ((0, 0), (0, below), (0, right), (0, 0)), "constant")
    for i in range(len(config.network.channels)):
        features = activate(config.network.activation, _convolution(weights, f"encoder.convolutions.{i}", features))
    return features


def encoder(config: Config, weights: Weights, images: Any, labels: Any) -> Any:
    """The features that the encoder's heads read, (batch, width)."""
    flat = _with_labels(config, convolved(config, weights, images).reshape(len(images), -1), labels)
    return dense(config, weights, "encoder", flat, len(config.network.hidden))


def decoder(config: Config, weights: Weights, latents: Any, labels: Any) -> Any:
    """Logits (batch[, samples], height, width, channels) of latents (batch[, samples], latent_dim)."""
    features = dense(config, weights, "decoder", _with_labels(config, latents, labels), len(config.network.hidden))
    count = len(config.network.channels)
    if not count:
        return linear(weights, "decoder.logits", features).reshape(*latents.shape[:-1], *config.image_shape)
    features = deconvolved(config, weights, linear(weights, "decoder.grid", features))
    return features.reshape(*latents.shape[:-1], *config.image_shape)


def deconvolved(config: Config, weights: Weights, features: Any) -> Any:
    """Logits (batch, *image_shape) of what stands on the grid."""
    count, features = len(config.network.channels), features.reshape(-1, *config.grid_shape)
    for name in (*(f"decoder.deconvolutions.{i}" for i in range(count - 1)), "decoder.logits"):
        features = _deconvolution(weights, name, activate(config.network.activation, features))
    height, width, _ = config.image_shape
    return features[:, :height, :width]


def dense(config: Config, weights: Weights, part: str, features: Any, layers: int) -> Any:
    """A part's hidden layers."""
    for i in range(layers):
        features = activate(config.network.activation, linear(weights, f"{part}.hidden.{i}", features))
    return features


def linear(weights: Weights, name: str, inputs: Any) -> Any:
    """A fully connected layer."""
    return np.dot(inputs, weights[f"{name}.weight"].T) + weights[f"{name}.bias"]


def _convolution(weights: Weights, name: str, x: Any) -> Any:
    """Kernel 4, stride 2, padding 1: a sum over the kernel's 16 places."""
    _, height, width, _ = x.shape
    padded, total = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "constant"), weights[f"{name}.bias"]
    for i in range(4):
        for j in range(4):
            seen = padded[:, i : i + height : 2, j : j + width : 2]
            total = total + np.dot(seen, weights[f"{name}.weight"][:, :, i, j].T)
    return total


def _deconvolution(weights: Weights, name: str, x: Any) -> Any:
    """The transpose of a convolution: each place of the kernel puts its share two pixels apart."""
    batch, height, width, _ = x.shape
    total: Any = 0
    for i in range(4):
        for j in range(4):
            share = np.dot(x, weights[f"{name}.weight"][:, :, i, j])
            apart = np.zeros((batch, height, 2, width, 2, share.shape[-1]))
            apart[:, :, 0, :, 0] = 1
            spread = (share[:, :, None, :, None] * apart).reshape(batch, 2 * height, 2 * width, -1)
            inner = spread[:, : 2 * height - 1, : 2 * width - 1]
            total = total + np.pad(inner, ((0, 0), (i, 3 - i), (j, 3 - j), (0, 0)), "constant")
    return total[:, 1:-1, 1:-1] + weights[f"{name}.bias"]


def _with_labels(config: Config, features: Any, labels: Any) -> Any:
    if not config.network.classes:
        return features
    one_hot = np.eye(config.network.classes)[labels]
    if features.ndim == 3:
        one_hot = np.repeat(one_hot[:, None], features.shape[1], 1)
    return np.concatenate([features, one_hot], -1)


def activate(name: str, x: Any) -> Any:
    """The activation of that name."""
    if name == "relu":
        return np.where(x > 0, x, 0.0)
    if name == "tanh":
        return np.tanh(x)
    if name == "softplus":
        return np.logaddexp(0, x)
    if name == "silu":
        return x * special.expit(x)
    return x * stats.norm.cdf(x) if name == "gelu" else math.nan
