"""The same maths once more, by hand, in float64 NumPy: the third voice beside the two halves.

Nothing is differentiated automatically here. Weights are dicts of canonical names and layouts
(`encoder.hidden.0.weight`, shape (out, in)). Slow on purpose: read it to know what the halves compute.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from vae_common import randomness
from vae_common.configs import MODELS, Config, LossConfig
from vae_common.contracts import Outputs, Posterior, Terms

Weights = Mapping[str, np.ndarray]
Tape = dict[str, tuple[np.ndarray, ...]]


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Canonical name -> canonical shape of every parameter, in the order of the forward pass."""
    heads = ("mean", "log_std") if MODELS[config.model].posterior else ("code",)
    hidden, latent_dim = config.network.hidden, config.network.latent_dim
    layers = []
    width = config.pixels
    for i, next_width in enumerate(hidden):
        layers.append((f"encoder.hidden.{i}", next_width, width))
        width = next_width
    layers += [(f"encoder.{head}", latent_dim, width) for head in heads]
    width = latent_dim
    for i, next_width in enumerate(reversed(hidden)):
        layers.append((f"decoder.hidden.{i}", next_width, width))
        width = next_width
    layers.append(("decoder.logits", config.pixels, width))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, outputs, inputs in layers:
        shapes[f"{name}.weight"] = (outputs, inputs)
        shapes[f"{name}.bias"] = (outputs,)
    return shapes


def forward(config: Config, weights: Weights, images: np.ndarray, noise: np.ndarray) -> Outputs:
    """The forward pass on images in [0, 1], shape (batch, height, width, channels)."""
    return _forward(config, weights, images, noise)[0]


def decode(config: Config, weights: Weights, latents: np.ndarray) -> np.ndarray:
    """Pixel means in (0, 1), (N, height, width, channels), of latents (N, latent_dim)."""
    return special.expit(_logits(config, weights, latents, {}))


def loss_terms(loss: LossConfig, outputs: Outputs, images: np.ndarray) -> Terms:
    """Total, reconstruction and KL of each example, shape (batch,)."""
    batch = len(images)
    logits, x = outputs.logits.reshape(batch, -1), np.asarray(images, np.float64).reshape(batch, -1)
    if loss.reconstruction == "bernoulli":
        reconstruction = (np.logaddexp(0, logits) - x * logits).sum(1)
    else:
        reconstruction = ((x - special.expit(logits)) ** 2).sum(1)
    mean, log_std = outputs.posterior
    if log_std is None:
        kl = np.zeros(batch)
    elif loss.kl == "gaussian":
        kl = ((np.exp(2 * log_std) + mean**2 - 1) / 2 - log_std).sum(1)
    else:
        kl = (np.exp(2 * log_std) + mean**2 - log_std - 0.5).sum(1)
    return Terms(reconstruction + loss.beta * kl, reconstruction, kl)


def gradients(config: Config, weights: Weights, images: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient of the batch's loss (its mean or sum, as configured) for every parameter."""
    outputs, tape = _forward(config, weights, images, noise)
    loss, batch = config.loss, len(images)
    scale = 1 / batch if loss.reduction == "mean" else 1.0
    logits, x = outputs.logits.reshape(batch, -1), np.asarray(images, np.float64).reshape(batch, -1)
    p = special.expit(logits)
    d_logits = p - x if loss.reconstruction == "bernoulli" else 2 * (p - x) * p * (1 - p)
    grads: dict[str, np.ndarray] = {}

    def linear_back(name: str, inputs: np.ndarray, d_outputs: np.ndarray) -> np.ndarray:
        grads[f"{name}.weight"] = d_outputs.T @ inputs
        grads[f"{name}.bias"] = d_outputs.sum(0)
        return d_outputs @ weights[f"{name}.weight"]

    def hidden_back(part: str, d_features: np.ndarray) -> np.ndarray:
        for i in reversed(range(len(config.network.hidden))):
            inputs, preactivations = tape[f"{part}.hidden.{i}"]
            slope = _activate(config.network.activation, preactivations)[1]
            d_features = linear_back(f"{part}.hidden.{i}", inputs, d_features * slope)
        return d_features

    d_features = linear_back("decoder.logits", tape["decoder.features"][0], scale * d_logits)
    d_latents = hidden_back("decoder", d_features)
    features = tape["encoder.features"][0]
    mean, log_std = outputs.posterior
    if log_std is None:
        d_features = linear_back("encoder.code", features, d_latents)
    else:
        variance = np.exp(2 * log_std)
        if loss.kl == "gaussian":
            d_mean_kl, d_log_std_kl = mean, variance - 1
        else:
            d_mean_kl, d_log_std_kl = 2 * mean, 2 * variance - 1
        d_mean = d_latents + scale * loss.beta * d_mean_kl
        d_log_std = d_latents * noise * np.exp(log_std) + scale * loss.beta * d_log_std_kl
        d_features = linear_back("encoder.mean", features, d_mean)
        d_features = d_features + linear_back("encoder.log_std", features, d_log_std)
    hidden_back("encoder", d_features)
    return {name: grads[name] for name in weights}


def adam(
    weights: Weights, grads: Weights, first: Weights, second: Weights, step: int, learning_rate: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """One update of Adam (Kingma and Ba 2015, algorithm 1) as step 1, 2, ...; new weights and moments."""
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    new_first = {k: beta1 * first[k] + (1 - beta1) * g for k, g in grads.items()}
    new_second = {k: beta2 * second[k] + (1 - beta2) * g**2 for k, g in grads.items()}
    new = {}
    for k, w in weights.items():
        mean, square = new_first[k] / (1 - beta1**step), new_second[k] / (1 - beta2**step)
        new[k] = w - learning_rate * mean / (np.sqrt(square) + eps)
    return new, new_first, new_second


def train(config: Config, images: np.ndarray, epochs: int) -> tuple[Terms, dict[str, np.ndarray]]:
    """The experiment's first epochs by hand: every step's mean terms, (steps,) each, and the last weights.

    `images` are uint8; initial weights, order, noise and thresholds are the seed's, the first and the noise
    rounded to the config's dtype.
    """
    dtype = config.training.dtype
    drawn = randomness.initial_weights(shapes(config), config.seed)
    weights = {name: weight.astype(dtype).astype(np.float64) for name, weight in drawn.items()}
    first = second = {name: np.zeros_like(weight) for name, weight in weights.items()}
    steps: list[list[float]] = []
    for epoch in range(epochs):
        draws = randomness.epoch_draws(config, epoch, len(images))
        for step, order in enumerate(draws.order):
            batch = images[order] / 255 if draws.thresholds is None else images[order] > draws.thresholds[step]
            noise = draws.noise[step].astype(dtype).astype(np.float64)
            outputs = forward(config, weights, batch, noise)
            steps.append([float(term.mean()) for term in loss_terms(config.loss, outputs, batch)])
            grads = gradients(config, weights, batch, noise)
            rate = config.training.learning_rate
            weights, first, second = adam(weights, grads, first, second, len(steps), rate)
    return Terms(*np.array(steps).T), weights


def _forward(config: Config, weights: Weights, images: np.ndarray, noise: np.ndarray) -> tuple[Outputs, Tape]:
    tape: Tape = {}
    features = _hidden(config, weights, "encoder", np.asarray(images, np.float64).reshape(len(images), -1), tape)
    if MODELS[config.model].posterior:
        posterior = Posterior(_linear(weights, "encoder.mean", features), _linear(weights, "encoder.log_std", features))
        latents = posterior.mean + np.exp(posterior.log_std) * noise
    else:
        posterior = Posterior(_linear(weights, "encoder.code", features), None)
        latents = posterior.mean
    return Outputs(_logits(config, weights, latents, tape), posterior, latents), tape


def _logits(config: Config, weights: Weights, latents: np.ndarray, tape: Tape) -> np.ndarray:
    features = _hidden(config, weights, "decoder", np.asarray(latents, np.float64), tape)
    return _linear(weights, "decoder.logits", features).reshape(len(latents), *config.image_shape)


def _hidden(config: Config, weights: Weights, part: str, features: np.ndarray, tape: Tape) -> np.ndarray:
    """The encoder's or decoder's hidden layers; their inputs go onto the tape."""
    for i in range(len(config.network.hidden)):
        preactivations = _linear(weights, f"{part}.hidden.{i}", features)
        tape[f"{part}.hidden.{i}"] = features, preactivations
        features = _activate(config.network.activation, preactivations)[0]
    tape[f"{part}.features"] = (features,)
    return features


def _linear(weights: Weights, name: str, inputs: np.ndarray) -> np.ndarray:
    return inputs @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _activate(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The activation and its derivative."""
    sigmoid = special.expit(x)
    if name == "relu":
        return np.maximum(x, 0), (x > 0).astype(x.dtype)
    if name == "tanh":
        return np.tanh(x), 1 - np.tanh(x) ** 2
    if name == "softplus":
        return np.logaddexp(0, x), sigmoid
    if name == "silu":
        return x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))
    normal_cdf = special.ndtr(x)  # gelu, exact
    return x * normal_cdf, normal_cdf + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
