"""The losses and objectives in float64 NumPy, and their gradients by HIPS autograd: the oracle of both halves' own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import autograd
import autograd.numpy as np
from autograd.scipy import special
from autograd.tracer import getval

from vae_common.config import Config, LossConfig
from vae_common.contracts import Outputs, StochasticLayer, Terms, layer_term, map_arrays
from vae_common.reference import quantizers
from vae_common.reference.distributions import Normal, log_normal
from vae_common.reference.likelihoods import negative_log_likelihood
from vae_common.reference.model import decoded_again, forward
from vae_common.reference.networks import Weights


class Batch(NamedTuple):
    """What an objective is given."""

    config: Config
    weights: Weights
    images: Any
    noise: Any
    labels: Any
    step: int
    outputs: Outputs
    means: Terms


Value = tuple[Any, dict[str, Any]]
"""Of an objective: the mean per image, and its named terms."""


def loss_terms(loss: LossConfig, outputs: Outputs, images: Any) -> Terms:
    """Total, reconstruction and KL of each example, shape (batch,); several draws are averaged."""
    reconstruction = _over_draws(negative_log_likelihood(loss, outputs, images))
    priors = [_prior(layer) for layer in outputs.layers]
    if loss.kl == "tutorial":
        kls = [np.sum(np.exp(2 * s) + m**2 - s - 0.5, -1) for m, s in (layer.posterior for layer in outputs.layers)]
    elif loss.kl == "sampled" or not all(prior.exact for prior in priors):
        kls = [log_ratio(layer) for layer in outputs.layers]
    else:
        kls = [np.sum(prior.exact_kls(layer.posterior), -1) for prior, layer in zip(priors, outputs.layers)]
    kls = [_over_draws(kl) for kl in kls]
    kl = sum(kls, np.zeros(len(images))) if outputs.codes is None else outputs.codes.nats
    more = {layer_term(place): each for place, each in enumerate(kls, 1)} if len(kls) > 1 else None
    return Terms(reconstruction + loss.beta * kl, reconstruction, kl, more=more)


def log_ratio(layer: StochasticLayer) -> Any:
    """log q - log p of a layer's latents, (batch[, samples]); q by the change of variables from the noise: a standard
    normal's density over the product of the sigmas."""
    volume = np.sum(layer.posterior.log_std, -1)
    log_q = Normal().log_density(layer.noise) - (volume[:, None] if layer.noise.ndim > volume.ndim + 1 else volume)
    return log_q - log_prior(layer)


def log_prior(layer: StochasticLayer) -> Any:
    """log p of a layer's latents, (batch[, samples])."""
    return _prior(layer).log_density(layer.latents)


def log_weights(loss: LossConfig, outputs: Outputs, images: Any) -> Any:
    """log p(images, latents) - log q(latents | images), (batch, samples)."""
    ratio = sum(log_ratio(layer) for layer in outputs.layers)
    found = -negative_log_likelihood(loss, outputs, images) - ratio
    return found if found.ndim == 2 else found[:, None]


def batch_loss(
    config: Config, weights: Weights, images: Any, noise: Any, labels: Any = None, step: int = 0
) -> tuple[Any, Terms]:
    """What a training step differentiates, and the batch's mean terms; for `dreg` its gradient is another."""
    outputs = forward(config, weights, images, noise, labels)
    means = map_arrays(np.mean, loss_terms(config.loss, outputs, images))
    objective = OBJECTIVES[config.loss.objective]
    value, terms = objective(Batch(config, weights, images, noise, labels, step, outputs, means))
    scale = len(images) if config.loss.reduction == "sum" else 1
    more, differentiated = {**(means.more or {}), **terms}, value * scale
    if outputs.codes is not None:
        more |= quantizers.use_terms(config, outputs.codes)
        for name, new in quantizers.after(config, weights, outputs.codes).items():
            differentiated = differentiated + np.sum(weights[name] * (getval(weights[name]) - new))
    return differentiated, means._replace(objective=value, more=more)


def gradients(
    config: Config, weights: Weights, images: Any, noise: Any, labels: Any = None, step: int = 0
) -> dict[str, Any]:
    """The gradient of the batch's loss (its mean or sum, as configured) for every parameter."""
    return terms_and_gradients(config, weights, images, noise, labels, step)[1]


def terms_and_gradients(
    config: Config, weights: Weights, images: Any, noise: Any, labels: Any = None, step: int = 0
) -> tuple[Terms, dict[str, Any]]:
    """A batch's mean terms and the gradient of every parameter."""
    batch = images, noise, labels, step
    if config.loss.objective in GRADIENTS:
        own = GRADIENTS[config.loss.objective](config, weights, images, noise, labels)
        return batch_loss(config, weights, *batch)[1], own
    kept: list[Terms] = []

    def loss(weights: Weights) -> Any:
        value, terms = batch_loss(config, weights, *batch)
        kept.append(map_arrays(getval, terms))
        return value

    found: dict[str, Any] = autograd.grad(loss)(dict(weights))
    return kept[0], found


def _elbo(batch: Batch) -> Value:
    loss, means, codes = batch.config.loss, batch.means, batch.outputs.codes
    costs = [means.kl]
    if loss.free_bits:
        costs = []
        for layer in batch.outputs.layers:
            each = _prior(layer).exact_kls(layer.posterior)
            each = np.mean(each.reshape(-1, each.shape[-1]), 0)
            costs.append(np.sum(np.where(each > loss.free_bits, each, loss.free_bits)))
    elif loss.kl_stagger:
        each_layer = [np.sum(_prior(layer).exact_kls(layer.posterior), -1) for layer in batch.outputs.layers]
        costs = [np.mean(each) for each in each_layer]
    value = means.reconstruction
    for place, cost in enumerate(costs):
        grown = (batch.step + 1 - place * loss.kl_stagger) / (loss.kl_warmup or 1)
        value = value + loss.beta * cost * (min(1.0, max(0.0, grown)) if loss.kl_warmup else 1.0)
    if codes is not None:
        value = value + np.mean(codes.penalty)
    return value, {}


def _importance_weighted(batch: Batch) -> Value:
    found = log_weights(batch.config.loss, batch.outputs, batch.images)
    return -np.mean(special.logsumexp(found, 1) - math.log(found.shape[1])), {}


def _beta_tc(batch: Batch) -> Value:
    """Chen et al. 2018, eq. 2, with their appendix C.1: q(z) is (1 / NM) sum_j q(z | x_j) over the batch's M images."""
    loss, (layer,), count = batch.config.loss, batch.outputs.layers, len(batch.images)
    mean, log_std = layer.posterior
    itself, others = np.eye(count)[:, :, None], 1 - np.eye(count)[:, :, None]
    own = -(layer.noise**2) / 2 - log_std - math.log(2 * math.pi) / 2
    each = others * log_normal(layer.latents[:, None], mean[None], log_std[None]) + itself * own[:, None]
    of_all = math.log(count) + math.log(batch.config.train_images)
    q, q_of_each = special.logsumexp(np.sum(each, 2), 1) - of_all, special.logsumexp(each, 1) - of_all
    mutual = np.mean(np.sum(own, 1) - q)
    correlation = np.mean(q - np.sum(q_of_each, 1))
    dimension = np.mean(np.sum(q_of_each - log_normal(layer.latents, 0.0, 0.0), 1))
    value = batch.means.reconstruction + loss.mi_weight * mutual + loss.tc_weight * correlation
    named = {
        "mutual_information_nats": mutual,
        "total_correlation_nats": correlation,
        "dimension_wise_kl_nats": dimension,
    }
    return value + loss.dimension_weight * dimension, named


OBJECTIVES: dict[str, Callable[[Batch], Value]] = {
    "elbo": _elbo,
    "iwae": _importance_weighted,
    "dreg": _importance_weighted,
    "beta_tc": _beta_tc,
}


def _doubly_reparameterised(config: Config, weights: Weights, images: Any, noise: Any, labels: Any) -> dict[str, Any]:
    """Tucker et al. 2019, eq. 8, term by term: the decoder's gradient at fixed draws, the encoder's along them."""
    loss = config.loss
    outputs = forward(config, weights, images, noise, labels)
    (layer,) = outputs.layers
    found = log_weights(loss, outputs, images)
    shares = np.exp(found - special.logsumexp(found, 1, keepdims=True))
    scale = 1 / (len(images) if loss.reduction == "mean" else 1)
    std = np.exp(layer.posterior.log_std)
    std = std if layer.latents.ndim == 2 else std[:, None]

    def at(w: Weights, latents: Any) -> Any:
        """The log weights as a function of the decoder, the prior and the draws alone."""
        own = forward(config, w, images, noise, labels).layers[0].prior
        held = StochasticLayer(layer.posterior, own, latents, layer.noise + (latents - layer.latents) / std)
        return log_weights(loss, decoded_again(config, w, outputs._replace(layers=(held,)), latents, labels), images)

    of_decoder = autograd.grad(lambda w: -scale * np.sum(shares * at(w, layer.latents)))(dict(weights))
    pull = autograd.grad(lambda latents: -scale * np.sum(shares**2 * at(weights, latents)))(layer.latents)
    of_encoder = autograd.grad(lambda w: np.sum(pull * forward(config, w, images, noise, labels).latents))(
        dict(weights)
    )
    return {name: of_decoder[name] + of_encoder[name] for name in weights}


GRADIENTS = {"dreg": _doubly_reparameterised}
"""Where the gradient is not that of the objective's value."""


def _prior(layer: StochasticLayer) -> Any:
    return Normal() if layer.prior is None else layer.prior


def _over_draws(array: Any) -> Any:
    return np.mean(array, 1) if array.ndim > 1 else array
