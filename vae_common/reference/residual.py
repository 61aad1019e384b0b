"""The KL autoencoder's networks in float64 NumPy. Features are (batch, height, width, channels)."""

from __future__ import annotations

import math
from typing import Any

import autograd.numpy as np

from vae_common.config import Config
from vae_common.contracts import Posterior
from vae_common.reference.networks import Weights, activate, linear

Shapes = dict[str, tuple[int, ...]]


def shapes(config: Config) -> Shapes:
    """Canonical name -> canonical shape of every parameter."""
    network, deep = config.network, config.image_shape[2]
    channels, latents = network.block_channels, network.latent_channels
    found: Shapes = {}

    def conv(name: str, inputs: int, outputs: int, size: int = 3) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs, size, size), (outputs,)

    def norm(name: str, count: int) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (count,)

    def resnet(name: str, inputs: int, outputs: int) -> None:
        norm(f"{name}.norm1", inputs)
        conv(f"{name}.conv1", inputs, outputs)
        norm(f"{name}.norm2", outputs)
        conv(f"{name}.conv2", outputs, outputs)
        if inputs != outputs:
            conv(f"{name}.conv_shortcut", inputs, outputs, 1)

    def middle(part: str, count: int) -> None:
        for i in range(2):
            resnet(f"{part}.mid_block.resnets.{i}", count, count)
        if network.attention == "middle":
            norm(f"{part}.mid_block.attentions.0.group_norm", count)
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                layer = f"{part}.mid_block.attentions.0.{name}"
                found[f"{layer}.weight"], found[f"{layer}.bias"] = (count, count), (count,)

    def ends(part: str, inputs: int, first: int, last: int, outputs: int) -> None:
        conv(f"{part}.conv_in", inputs, first)
        norm(f"{part}.conv_norm_out", last)
        conv(f"{part}.conv_out", last, outputs)

    def blocks(part: str, widths: tuple[int, ...], layers: int, kind: str, resampler: str) -> None:
        for i, (before, after) in enumerate(zip((widths[0], *widths), widths)):
            for j in range(layers):
                resnet(f"{part}.{kind}.{i}.resnets.{j}", before if j == 0 else after, after)
            if i < len(widths) - 1:
                conv(f"{part}.{kind}.{i}.{resampler}.0.conv", after, after)

    ends("encoder", deep, channels[0], channels[-1], 2 * latents)
    blocks("encoder", channels, network.block_layers, "down_blocks", "downsamplers")
    middle("encoder", channels[-1])
    ends("decoder", latents, channels[-1], channels[0], deep)
    blocks("decoder", channels[::-1], network.block_layers + 1, "up_blocks", "upsamplers")
    middle("decoder", channels[-1])
    if network.latent_convolutions in ("both", "encoder"):
        conv("quant_conv", 2 * latents, 2 * latents, 1)
    if network.latent_convolutions in ("both", "decoder"):
        conv("post_quant_conv", latents, latents, 1)
    return found


def posterior(config: Config, weights: Weights, images: Any) -> Posterior:
    """Of images in [0, 1], flat: (batch, height * width * latent_channels)."""
    features = _conv(weights, "encoder.conv_in", 2 * images.reshape(-1, *config.image_shape) - 1)
    for i in range(len(config.network.block_channels)):
        name = f"encoder.down_blocks.{i}"
        for j in range(config.network.block_layers):
            features = _resnet(config, weights, f"{name}.resnets.{j}", features)
        if f"{name}.downsamplers.0.conv.weight" in weights:
            features = _conv(weights, f"{name}.downsamplers.0.conv", features, stride=2, before=0)
    features = _end(config, weights, "encoder", _middle(config, weights, "encoder", features))
    if "quant_conv.weight" in weights:
        features = _conv(weights, "quant_conv", features)
    half = config.network.latent_channels
    mean, log_variance = features[..., :half], features[..., half:]
    log_variance = np.minimum(np.maximum(log_variance, -30.0), 20.0)
    return Posterior(mean.reshape(len(mean), -1), log_variance.reshape(len(mean), -1) / 2)


def decoder(config: Config, weights: Weights, latents: Any, labels: Any) -> Any:
    """What the decoder gives, (batch[, samples], height, width, channels), of latents (batch[, samples], n)."""
    features = latents.reshape(-1, *config.latent_shape)
    if "post_quant_conv.weight" in weights:
        features = _conv(weights, "post_quant_conv", features)
    features = _middle(config, weights, "decoder", _conv(weights, "decoder.conv_in", features))
    for i in range(len(config.network.block_channels)):
        name = f"decoder.up_blocks.{i}"
        for j in range(config.network.block_layers + 1):
            features = _resnet(config, weights, f"{name}.resnets.{j}", features)
        if f"{name}.upsamplers.0.conv.weight" in weights:
            larger = np.repeat(np.repeat(features, 2, 1), 2, 2)
            features = _conv(weights, f"{name}.upsamplers.0.conv", larger)
    images = _end(config, weights, "decoder", features)
    lead = latents.shape[:-3] if latents.ndim > 3 else latents.shape[:-1]  # flat ones have at most a batch and draws
    return images.reshape(*lead, *config.image_shape)


def _middle(config: Config, weights: Weights, part: str, features: Any) -> Any:
    features = _resnet(config, weights, f"{part}.mid_block.resnets.0", features)
    if config.network.attention == "middle":
        features = _attention(config, weights, f"{part}.mid_block.attentions.0", features)
    return _resnet(config, weights, f"{part}.mid_block.resnets.1", features)


def _end(config: Config, weights: Weights, part: str, features: Any) -> Any:
    features = _norm(config, weights, f"{part}.conv_norm_out", features)
    return _conv(weights, f"{part}.conv_out", activate("silu", features))


def _resnet(config: Config, weights: Weights, name: str, features: Any) -> Any:
    inner = features
    for i in (1, 2):
        normal = _norm(config, weights, f"{name}.norm{i}", inner)
        inner = _conv(weights, f"{name}.conv{i}", activate(config.network.activation, normal))
    if f"{name}.conv_shortcut.weight" in weights:
        features = _conv(weights, f"{name}.conv_shortcut", features)
    return features + inner


def _attention(config: Config, weights: Weights, name: str, features: Any) -> Any:
    """Without the keys' bias: it moves all scores of a query alike."""
    batch, height, width, channels = features.shape
    places = _norm(config, weights, f"{name}.group_norm", features).reshape(batch, height * width, channels)
    query, value = linear(weights, f"{name}.to_q", places), linear(weights, f"{name}.to_v", places)
    key = np.dot(places, weights[f"{name}.to_k.weight"].T)
    scores = np.einsum("bqc,bkc->bqk", query, key) / math.sqrt(channels)
    shares = np.exp(scores - np.max(scores, -1, keepdims=True))
    shares = shares / np.sum(shares, -1, keepdims=True)
    attended = linear(weights, f"{name}.to_out.0", np.einsum("bqk,bkc->bqc", shares, value))
    return features + attended.reshape(features.shape)


def _norm(config: Config, weights: Weights, name: str, features: Any) -> Any:
    """Group by group."""
    groups, channels = config.network.norm_groups, features.shape[-1]
    size, normal = channels // groups, []
    for group in range(groups):
        part = features[..., group * size : (group + 1) * size]
        mean = np.mean(part, (1, 2, 3), keepdims=True)
        variance = np.mean((part - mean) ** 2, (1, 2, 3), keepdims=True)
        normal.append((part - mean) / np.sqrt(variance + 1e-6))
    return np.concatenate(normal, -1) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _conv(weights: Weights, name: str, x: Any, stride: int = 1, before: int | None = None) -> Any:
    """A sum over the kernel's places; of padding that keeps the size, or of one row and column behind alone."""
    kernel, size = weights[f"{name}.weight"], weights[f"{name}.weight"].shape[-1]
    _, height, width, _ = x.shape
    if size > 1:
        sides = (size // 2 if before is None else before, size // 2)
        x = np.pad(x, ((0, 0), sides, sides, (0, 0)), "constant")
    total = weights[f"{name}.bias"]
    for i in range(size):
        for j in range(size):
            seen = x[:, i : i + height : stride, j : j + width : stride]
            total = total + np.dot(seen, kernel[:, :, i, j].T)
    return total
