"""The same maths once more, in float64 NumPy: the oracle beside the two halves.

Written apart from them, with other formulas where there are any, and differentiated by HIPS autograd, which is
neither framework. Weights are dicts of canonical names and layouts (`encoder.hidden.0.weight`, shape (out, in)).
Slow on purpose: read it to know what the halves compute. The likelihoods are in likelihoods.py.
"""

from __future__ import annotations

import math
from typing import Any

import autograd
import autograd.numpy as np
from autograd.scipy import special
from autograd.tracer import getval
from scipy.special import ndtr

from vae_common.config import Config, LossConfig
from vae_common.contracts import Codes, Outputs, Posterior, Terms, UpperLayer
from vae_common.reference.likelihoods import negative_log_likelihood, pixel_means
from vae_common.reference.networks import Weights, decoder, dense, encoder, linear


def knows(config: Config) -> bool:
    """Whether there is an oracle for the config's model."""
    return config.model in FORWARDS


def forward(config: Config, weights: Weights, images: Any, noise: Any, labels: Any = None) -> Outputs:
    """The forward pass on images in [0, 1], (batch, height, width, channels); noise (batch[, samples], noise_dim)."""
    return FORWARDS[config.model](config, weights, np.asarray(images, float), noise, labels)


def encode(config: Config, weights: Weights, images: Any, labels: Any = None) -> Posterior:
    """What the latents of images in [0, 1] are drawn from."""
    noise = np.zeros((len(images), config.noise_dim))
    return forward(config, weights, images, noise, labels).posterior


def decode(config: Config, weights: Weights, latents: Any, labels: Any = None) -> Any:
    """Pixel means in (0, 1), (N, height, width, channels), of latents (N, latent_dim)."""
    return pixel_means(decoder(config, weights, latents, labels), config.loss.reconstruction)


def sample(config: Config, weights: Weights, noise: Any, labels: Any = None) -> Any:
    """Pixel means of draws from the prior, made of standard-normal noise (N, prior_dim)."""
    latents = noise
    if config.model == "two_layer_vae":
        lower = config.network.latent_dim
        mean, log_std = _gaussian_layer(config, weights, "top_decoder", noise[:, lower:])
        latents = mean + np.exp(log_std) * noise[:, :lower]
    if config.model == "vq_vae":
        book = weights["codebook.weight"]
        latents = book[np.floor(ndtr(noise) * len(book)).astype(int)].reshape(len(noise), -1)
    return decode(config, weights, latents, labels)


def loss_terms(loss: LossConfig, outputs: Outputs, images: Any) -> Terms:
    """Total, reconstruction and KL of each example, shape (batch,); several draws are averaged."""
    reconstruction = negative_log_likelihood(loss, outputs, images)
    mean, log_std = outputs.posterior
    if outputs.codes is not None:
        kl = outputs.codes.nats
    elif log_std is None:
        kl = np.zeros(len(mean))
    elif outputs.upper is not None or loss.kl == "sampled":
        kl = _log_ratio(outputs)
    elif loss.kl == "gaussian":
        kl = np.sum(_exact_kls(outputs.posterior), 1)
    else:
        kl = np.sum(np.exp(2 * log_std) + mean**2 - log_std - 0.5, 1)
    if reconstruction.ndim > 1:
        reconstruction, kl = np.mean(reconstruction, 1), np.mean(kl, 1) if kl.ndim > 1 else kl
    return Terms(reconstruction + loss.beta * kl, reconstruction, kl)


def _exact_kls(posterior: Posterior) -> Any:
    """KL of each latent's Gaussian to the standard normal, (batch, latent_dim)."""
    mean, log_std = posterior
    return (np.exp(2 * log_std) + mean**2 - 1) / 2 - log_std


def batch_loss(
    config: Config, weights: Weights, images: Any, noise: Any, labels: Any = None, step: int = 0
) -> tuple[Any, Terms]:
    """What a training step differentiates, and the batch's mean terms; for `dreg` its gradient is another."""
    loss, outputs = config.loss, forward(config, weights, images, noise, labels)
    means = Terms(*(np.mean(term) for term in loss_terms(loss, outputs, images)))
    if loss.objective == "elbo":
        cost, weight = means.kl, loss.beta
        if loss.free_bits:
            each = np.mean(_exact_kls(outputs.posterior), 0)
            cost = np.sum(np.where(each > loss.free_bits, each, loss.free_bits))
        if loss.kl_warmup:
            weight = loss.beta * min(1.0, (step + 1) / loss.kl_warmup)
        total = means.reconstruction + weight * cost
        if outputs.codes is not None:
            inputs, vectors = outputs.codes.inputs, outputs.codes.vectors
            apart = np.sum((getval(inputs) - vectors) ** 2) + loss.commitment * np.sum((inputs - getval(vectors)) ** 2)
            total = total + apart / len(images)
    else:
        log_weights = _log_weights(loss, outputs, images)
        total = -np.mean(special.logsumexp(log_weights, 1) - math.log(loss.samples))
    return total * (len(images) if loss.reduction == "sum" else 1), means._replace(total=total)


def gradients(
    config: Config, weights: Weights, images: Any, noise: Any, labels: Any = None, step: int = 0
) -> dict[str, Any]:
    """The gradient of the batch's loss (its mean or sum, as configured) for every parameter."""
    if config.loss.objective == "dreg":
        return _doubly_reparameterised(config, weights, images, noise, labels)
    found: dict[str, Any] = autograd.grad(lambda w: batch_loss(config, w, images, noise, labels, step)[0])(
        dict(weights)
    )
    return found


def _doubly_reparameterised(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> dict[str, Any]:
    """Tucker et al. 2019, eq. 8, term by term: the decoder's gradient at fixed draws, the encoder's along them."""
    loss = config.loss
    outputs = forward(config, weights, images, noise, labels)
    log_weights = _log_weights(loss, outputs, images)
    shares = np.exp(log_weights - special.logsumexp(log_weights, 1, keepdims=True))
    scale = 1 / (len(images) if loss.reduction == "mean" else 1)

    std = np.exp(outputs.posterior.log_std)
    std = std if outputs.latents.ndim == 2 else std[:, None]

    def at(w: Weights, latents: Any) -> Any:
        """The log weights as a function of the decoder and of the draws alone."""
        noise = outputs.noise + (latents - outputs.latents) / std
        moved = outputs._replace(logits=decoder(config, w, latents, labels), latents=latents, noise=noise)
        if outputs.log_scale is not None:
            moved = moved._replace(log_scale=_log_scale(w, latents))
        return _log_weights(loss, moved, images)

    of_decoder = autograd.grad(lambda w: -scale * np.sum(shares * at(w, outputs.latents)))(dict(weights))
    pull = autograd.grad(lambda latents: -scale * np.sum(shares**2 * at(weights, latents)))(outputs.latents)
    of_encoder = autograd.grad(lambda w: np.sum(pull * forward(config, w, images, noise, labels).latents))(
        dict(weights)
    )
    return {name: of_decoder[name] + of_encoder[name] for name in weights}


def _log_weights(loss: LossConfig, outputs: Outputs, images: Any) -> Any:
    """log p(images, latents) - log q(latents | images), (batch, samples)."""
    log_weights = -negative_log_likelihood(loss, outputs, images) - _log_ratio(outputs)
    return log_weights if log_weights.ndim == 2 else log_weights[:, None]


def _log_ratio(outputs: Outputs) -> Any:
    ratio = _log_posterior(outputs.noise, outputs.posterior) - _log_density(outputs.latents, outputs.prior)
    if outputs.upper is not None:
        top = outputs.upper
        ratio = ratio + _log_posterior(top.noise, top.posterior) - _log_density(top.latents, None)
    return ratio


def _log_posterior(noise: Any, posterior: Posterior) -> Any:
    """By the change of variables from the noise: a standard normal's density over the product of the sigmas."""
    volume = np.sum(posterior.log_std, -1)
    return _log_density(noise, None) - (volume[:, None] if noise.ndim > posterior.log_std.ndim else volume)


def _log_density(latents: Any, distribution: Posterior | None) -> Any:
    mean, log_std = distribution or (np.zeros_like(getval(latents)), np.zeros_like(getval(latents)))
    variance = np.exp(2 * log_std)
    return -np.sum((latents - mean) ** 2 / variance + 2 * log_std + math.log(2 * math.pi), -1) / 2


def terms_and_gradients(
    config: Config, weights: Weights, images: Any, noise: Any, labels: Any = None, step: int = 0
) -> tuple[Terms, dict[str, Any]]:
    """A batch's mean terms and the gradient of every parameter."""
    batch = images, noise, labels, step
    return batch_loss(config, weights, *batch)[1], gradients(config, weights, *batch)


def _ae(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> Outputs:
    code = linear(weights, "encoder.code", encoder(config, weights, images, labels))
    return _decoded(config, weights, Posterior(code, None), code, labels)


def _vae(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> Outputs:
    posterior = _heads(config, weights, "encoder", encoder(config, weights, images, labels))
    return _decoded(config, weights, posterior, _reparameterize(posterior, noise), labels, noise=noise)


def _two_layer_vae(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> Outputs:
    lower = config.network.latent_dim
    posterior = _heads(config, weights, "encoder", encoder(config, weights, images, labels))
    own, upper = noise[..., :lower], noise[..., lower:]
    latents = _reparameterize(posterior, own)
    top_posterior = _gaussian_layer(config, weights, "top_encoder", latents)
    top = _reparameterize(top_posterior, upper)
    prior = _gaussian_layer(config, weights, "top_decoder", top)
    return _decoded(
        config, weights, posterior, latents, labels, noise=own, prior=prior, upper=UpperLayer(top_posterior, top, upper)
    )


def _vq_vae(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> Outputs:
    code = linear(weights, "encoder.code", encoder(config, weights, images, labels))
    book, groups = weights["codebook.weight"], code.reshape(len(images), -1, config.network.code_dim)
    far = np.linalg.norm(getval(groups)[:, :, None] - getval(book), axis=-1)
    indices = np.argmin(far, -1)
    vectors = book[indices].reshape(code.shape)
    latents = code + getval(vectors) - getval(code)
    nats = np.full(len(images), indices.shape[1] * math.log(config.network.codes))
    codes = Codes(code, vectors, indices, nats)
    return _decoded(config, weights, Posterior(vectors, None), latents, labels, codes=codes)


FORWARDS = {"ae": _ae, "vae": _vae, "two_layer_vae": _two_layer_vae, "vq_vae": _vq_vae}


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


def _log_scale(weights: Weights, latents: Any) -> Any:
    return weights["decoder.log_scale"] * np.ones((*latents.shape[:-1], 1, 1, 1))


def _decoded(config: Config, weights: Weights, posterior: Posterior, latents: Any, labels: Any, **more: Any) -> Outputs:
    log_scale = _log_scale(weights, latents) if config.loss.likelihood.learns_scale else None
    return Outputs(decoder(config, weights, latents, labels), posterior, latents, log_scale=log_scale, **more)
