"""The same models once more, in float64 NumPy: the oracle beside the two halves.

Written apart from them, with other formulas where there are any, and differentiated by HIPS autograd, which is
neither framework. Weights are dicts of canonical names and layouts (`encoder.hidden.0.weight`, shape (out, in)).
Slow on purpose: read it to know what the halves compute. Losses and objectives are in objectives.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import autograd.numpy as np
from autograd.tracer import getval

from vae_common.config import Config
from vae_common.config.registry import size
from vae_common.contracts import Outputs, Posterior, StochasticLayer
from vae_common.randomness import Start
from vae_common.reference import ladder, networks, quantizers, residual
from vae_common.reference.distributions import MixtureOfNormals, Normal
from vae_common.reference.likelihoods import pixel_means
from vae_common.reference.networks import Weights, decoder, dense, dense_shapes, encoder, linear

Shapes = dict[str, tuple[int, ...]]


def knows(config: Config) -> bool:
    """Whether there is an oracle for the config's model."""
    return config.model in ORACLES


def shapes(config: Config) -> Shapes:
    """Canonical name -> canonical shape of every parameter."""
    return ORACLES[config.model].shapes(config) | _scale_shape(config)


def _scale_shape(config: Config) -> Shapes:
    return {"decoder.log_scale": (1,)} if config.loss.likelihood.learns_scale else {}


def starts(config: Config) -> dict[str, Start]:
    """How the parameters begin that belong to no layer."""
    scale = {"decoder.log_scale": Start(-2.0)} if config.loss.likelihood.learns_scale else {}
    return {**scale, **ORACLES[config.model].starts(config)}


def forward(config: Config, weights: Weights, images: Any, noise: Any, labels: Any = None) -> Outputs:
    """The forward pass on images in [0, 1], (batch, height, width, channels); noise (batch[, samples], noise_dim)."""
    return ORACLES[config.model].forward(config, weights, np.asarray(images, float), noise, labels)


def encode(config: Config, weights: Weights, images: Any, labels: Any = None) -> Posterior:
    """What the latents of images in [0, 1] are drawn from; of a model that draws none the code."""
    found = forward(config, weights, images, np.zeros((len(images), config.noise_dim)), labels)
    each = [layer.posterior for layer in found.layers]
    whole = size(config.layer_shapes) == size([config.latent_shape])  # of several layers that are all decoded
    if whole and each:
        flat = Posterior(*(np.concatenate(parts, -1) for parts in zip(*each)))
    else:
        flat = each[0] if each else Posterior(found.latents, None)
    shape = (len(images), *config.latent_shape)
    return Posterior(*(None if array is None else array.reshape(shape) for array in flat))


def decode(config: Config, weights: Weights, latents: Any, labels: Any = None) -> Any:
    """Pixel means in (0, 1), (N, height, width, channels), of latents (N, latent_dim)."""
    return pixel_means(ORACLES[config.model].decoder(config, weights, latents, labels), config.loss.reconstruction)


def sample(config: Config, weights: Weights, noise: Any, labels: Any = None) -> Any:
    """Pixel means of draws from the prior, made of standard-normal noise (N, prior_dim)."""
    return decode(config, weights, ORACLES[config.model].generate(config, weights, noise), labels)


def _ae(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> Outputs:
    code = linear(weights, "encoder.code", encoder(config, weights, images, labels))
    return _decoded(config, weights, code, labels)


def _vae(config: Config, weights: Weights, images: Any, noise: Any, labels: Any, prior: Any = None) -> Outputs:
    posterior = _heads(config, weights, "encoder", encoder(config, weights, images, labels))
    latents = _reparameterize(posterior, noise)
    return _decoded(config, weights, latents, labels, layers=(StochasticLayer(posterior, prior, latents, noise),))


def _two_layer_vae(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> Outputs:
    lower = config.network.latent_dim
    posterior = _heads(config, weights, "encoder", encoder(config, weights, images, labels))
    own, upper = noise[..., :lower], noise[..., lower:]
    latents = _reparameterize(posterior, own)
    top_posterior = _gaussian_layer(config, weights, "top_encoder", latents)
    top = _reparameterize(top_posterior, upper)
    prior = Normal(*_gaussian_layer(config, weights, "top_decoder", top), exact=False)
    layers = (StochasticLayer(posterior, prior, latents, own), StochasticLayer(top_posterior, None, top, upper))
    return _decoded(config, weights, latents, labels, layers=layers)


def _vq_vae(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> Outputs:
    codes = quantizers.quantized(config, weights, quantizers.encoded(config, weights, images, labels))
    latents = codes.inputs + getval(codes.vectors) - getval(codes.inputs)
    return _decoded(config, weights, latents, labels, codes=codes)


def _itself(config: Config, weights: Weights, noise: Any) -> Any:
    return noise


def _lower_given_upper(config: Config, weights: Weights, noise: Any) -> Any:
    lower = config.network.latent_dim
    mean, log_std = _gaussian_layer(config, weights, "top_decoder", noise[:, lower:])
    return mean + np.exp(log_std) * noise[:, :lower]


def _two_layer_shapes(config: Config) -> Shapes:
    network = config.network
    below, above, heads = network.latent_dim, network.top_dim, ("mean", "log_std")
    up = dense_shapes("top_encoder", below, network.top_hidden, heads, above)
    return networks.shapes(config) | up | dense_shapes("top_decoder", above, network.top_hidden[::-1], heads, below)


def _mixture(weights: Weights) -> MixtureOfNormals:
    return MixtureOfNormals(*(weights[f"prior_{name}"] for name in ("logits", "mean", "log_std")))


def _mixture_vae(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> Outputs:
    return _vae(config, weights, images, noise, labels, _mixture(weights))


def _mixture_shapes(config: Config) -> Shapes:
    shape = config.network.components, config.network.latent_dim
    return networks.shapes(config) | {"prior_logits": shape[:1], "prior_mean": shape, "prior_log_std": shape}


def _ladder_vae(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> Outputs:
    layers = ladder.layers(config, weights, images, noise, labels)
    draws = [ladder.drawn(layer.latents, noise) for layer in layers]
    return _decoded(config, weights, np.concatenate(draws, -1), labels, layers=tuple(layers))


def _kl_autoencoder(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> Outputs:
    posterior = residual.posterior(config, weights, images)
    latents = _reparameterize(posterior, noise)
    return _decoded(config, weights, latents, labels, layers=(StochasticLayer(posterior, None, latents, noise),))


def _norms(config: Config) -> dict[str, Start]:
    """Norms begin as they are: scale 1, shift 0."""
    layers = [name.rpartition(".")[0] for name in residual.shapes(config) if "norm" in name.rsplit(".", 2)[-2]]
    return {f"{layer}.{kind}": Start(float(kind == "weight")) for layer in layers for kind in ("weight", "bias")}


class Oracle(NamedTuple):
    """What the reference knows of a model."""

    forward: Callable[[Config, Weights, Any, Any, Any], Outputs]
    """Of the config, weights, images, noise and labels."""
    generate: Callable[[Config, Weights, Any], Any] = _itself
    """Latents from the prior, made of standard-normal noise (N, prior_dim)."""
    shapes: Callable[[Config], Shapes] = networks.shapes
    """Canonical name -> canonical shape of its parameters, but for a likelihood's."""
    starts: Callable[[Config], Mapping[str, Start]] = lambda config: {}
    """How those begin that belong to no layer."""
    decoder: Callable[[Config, Weights, Any, Any], Any] = decoder
    """What the decoder gives of latents and labels."""


ORACLES = {
    "ae": Oracle(_ae),
    "vae": Oracle(_vae),
    "two_layer_vae": Oracle(_two_layer_vae, _lower_given_upper, _two_layer_shapes),
    "vq_vae": Oracle(_vq_vae, quantizers.uniform, quantizers.shapes, quantizers.starts, quantizers.decoder),
    "mixture_vae": Oracle(
        _mixture_vae,
        lambda config, weights, noise: _mixture(weights).sample(noise),
        _mixture_shapes,
        lambda config: {"prior_logits": Start(), "prior_mean": Start(0.0, 1.0), "prior_log_std": Start()},
    ),
    "ladder_vae": Oracle(_ladder_vae, ladder.generate, ladder.shapes, lambda config: {"top": Start()}, ladder.decoder),
    "kl_autoencoder": Oracle(_kl_autoencoder, shapes=residual.shapes, starts=_norms, decoder=residual.decoder),
}
"""Every model that the reference knows."""


def _heads(config: Config, weights: Weights, part: str, features: Any) -> Posterior:
    scale = linear(weights, f"{part}.log_std", features)
    sigma_squared = config.network.posterior_head == "log_variance"
    return Posterior(linear(weights, f"{part}.mean", features), 0.5 * scale if sigma_squared else scale)


def _gaussian_layer(config: Config, weights: Weights, part: str, latents: Any) -> Posterior:
    return _heads(config, weights, part, dense(config, weights, part, latents, len(config.network.top_hidden)))


def _reparameterize(posterior: Posterior, noise: Any) -> Any:
    mean, std = posterior.mean, np.exp(posterior.log_std)
    if noise.ndim > mean.ndim:
        mean, std = mean[:, None], std[:, None]
    return mean + std * noise


def decoded_again(config: Config, weights: Weights, outputs: Outputs, latents: Any, labels: Any) -> Outputs:
    """The outputs with other latents decoded, everything else as it is."""
    again = _decoded(config, weights, latents, labels)
    return outputs._replace(logits=again.logits, latents=latents, log_scale=again.log_scale)


def _decoded(config: Config, weights: Weights, latents: Any, labels: Any, **more: Any) -> Outputs:
    log_scale = None
    if config.loss.likelihood.learns_scale:
        log_scale = weights["decoder.log_scale"] * np.ones((*latents.shape[:-1], 1, 1, 1))
    return Outputs(
        ORACLES[config.model].decoder(config, weights, latents, labels), latents, log_scale=log_scale, **more
    )
