"""The loss, per example and per term. Twin: jax_vae/losses.py.

Every function gives one number per image, summed over its pixels (likelihoods.py) or its latents; the mean over the
batch is taken once, in objectives.py. Conformance is against `vae_common.reference`.
"""

from __future__ import annotations

import math

import torch

from vae_common.config import LossConfig
from vae_common.contracts import Outputs, Posterior, StochasticLayer, Terms, layer_term, per_draw

from .device import Array
from .distributions import LOG_ROOT, StandardNormal
from .likelihoods import LIKELIHOODS

STANDARD = StandardNormal()


def gaussian_kl(mean: Array, log_std: Array) -> Array:
    """KL of N(mean, exp(log_std)^2) to N(0, 1) in nats, summed over the latents."""
    return STANDARD.exact_kls(Posterior(mean, log_std)).sum(-1)


def tutorial_kl(mean: Array, log_std: Array) -> Array:
    """The tutorial's penalty. Not a KL: its minimum is at a standard deviation of 0.71, not 1."""
    return (torch.exp(2 * log_std) + mean**2 - log_std - 0.5).sum(-1)


def log_posterior(layer: StochasticLayer) -> Array:
    """Log density in nats of a layer's latents under its posterior, by their noise: (latents - mean) / sigma would
    cancel."""
    return (-(layer.noise**2) / 2 - per_draw(layer.posterior.log_std, layer.noise) - LOG_ROOT).sum(-1)


def log_prior(layer: StochasticLayer) -> Array:
    """Log density in nats of a layer's latents under its prior."""
    return (STANDARD if layer.prior is None else layer.prior).log_density(layer.latents)


def exact_kls(layer: StochasticLayer) -> Array | None:
    """KL of each latent of a layer in nats, (batch[, samples], n), or None where it is not known."""
    known = getattr(STANDARD if layer.prior is None else layer.prior, "exact_kls", None)
    return None if known is None else known(layer.posterior)


def log_ratio(outputs: Outputs) -> Array:
    """log q(latents | images) - log p(latents) in nats, over all stochastic layers, (batch[, samples]).

    Its mean over draws is the KL.
    """
    ratio = torch.zeros_like(outputs.latents[..., 0])
    for layer in outputs.layers:
        ratio = ratio + log_posterior(layer) - log_prior(layer)
    return ratio


def reconstruction_terms(loss: LossConfig, outputs: Outputs, images: Array) -> Array:
    """The negative log-likelihood (or squared error) of every draw, (batch[, samples])."""
    logits, log_scale = outputs.logits, outputs.log_scale
    if loss.likelihood.takes_sigma:
        log_scale = torch.full_like(logits[..., :1, :1, :1], math.log(loss.sigma))
    return LIKELIHOODS[loss.reconstruction](logits, per_draw(images, logits), log_scale)


def log_weights(loss: LossConfig, outputs: Outputs, images: Array) -> Array:
    """log p(images, latents) - log q(latents | images) of every draw in nats, (batch[, samples])."""
    return -reconstruction_terms(loss, outputs, images) - log_ratio(outputs)


def layer_kls(loss: LossConfig, outputs: Outputs) -> tuple[list[Array], bool]:
    """The KL of each stochastic layer, (batch,), and whether it is exact: it is estimated from the draws where it is to
    be, and in all layers where one's is not known."""
    if loss.kl == "tutorial":
        return [tutorial_kl(*layer.posterior) for layer in outputs.layers], True
    known = [exact_kls(layer) for layer in outputs.layers]
    if loss.kl == "sampled" or any(kls is None for kls in known):
        return [_over_draws(log_posterior(layer) - log_prior(layer)) for layer in outputs.layers], False
    return [_over_draws(kls.sum(-1)) for kls in known if kls is not None], True


def loss_terms(loss: LossConfig, outputs: Outputs, images: Array) -> Terms:
    """Total, reconstruction and KL, shape (batch,) each: the negative ELBO where beta is 1; an AE's KL is 0.

    Several draws are averaged. Of several layers the KL of each is among the terms.
    """
    reconstruction = _over_draws(reconstruction_terms(loss, outputs, images))
    kls, exact = layer_kls(loss, outputs)
    if outputs.codes is not None:
        kl = outputs.codes.nats
    elif exact:
        kl = sum(kls, torch.zeros_like(reconstruction))
    else:
        kl = _over_draws(log_ratio(outputs))
    more = {layer_term(place): each for place, each in enumerate(kls, 1)} if len(kls) > 1 else None
    return Terms(reconstruction + loss.beta * kl, reconstruction, kl, more=more)


def _over_draws(array):
    """The mean over the draws of each image, where there are several."""
    return array.mean(1) if array.ndim > 1 else array
