"""The loss, per example and per term. Twin: jax_vae/losses.py.

Every function gives one number per image, summed over its pixels (likelihoods.py) or its latents; the mean over the
batch is taken once, in objectives.py. Conformance is against `vae_common.reference`.
"""

from __future__ import annotations

import math

import torch

from vae_common.config import LossConfig
from vae_common.contracts import Outputs, Posterior, Terms, per_draw

from .device import Array
from .likelihoods import LIKELIHOODS


def latent_kls(mean: Array, log_std: Array) -> Array:
    """KL of each latent's N(mean, exp(log_std)^2) to N(0, 1) in nats (Kingma and Welling 2014, appendix B)."""
    return (torch.exp(2 * log_std) + mean**2 - 1) / 2 - log_std


def gaussian_kl(mean: Array, log_std: Array) -> Array:
    """KL of N(mean, exp(log_std)^2) to N(0, 1) in nats, summed over the latents."""
    return latent_kls(mean, log_std).sum(-1)


def tutorial_kl(mean: Array, log_std: Array) -> Array:
    """The tutorial's penalty. Not a KL: its minimum is at a standard deviation of 0.71, not 1."""
    return (torch.exp(2 * log_std) + mean**2 - log_std - 0.5).sum(-1)


KLS = {"gaussian": gaussian_kl, "tutorial": tutorial_kl}


LOG_ROOT = math.log(2 * math.pi) / 2


def log_normal(latents: Array, distribution: Posterior | None) -> Array:
    """Log density in nats of latents (batch[, samples], n) under a prior; None is the standard normal."""
    if distribution is None:
        return (-(latents**2) / 2 - LOG_ROOT).sum(-1)
    mean, log_std = distribution
    return (-(((latents - mean) / torch.exp(log_std)) ** 2) / 2 - log_std - LOG_ROOT).sum(-1)


def log_posterior(noise: Array, posterior: Posterior) -> Array:
    """Log density in nats of latents mean + sigma * noise, by that noise: (latents - mean) / sigma would cancel."""
    return (-(noise**2) / 2 - per_draw(posterior.log_std, noise) - LOG_ROOT).sum(-1)


def log_ratio(outputs: Outputs) -> Array:
    """log q(latents | images) - log p(latents) in nats, over all stochastic layers, (batch[, samples]).

    Its mean over draws is the KL.
    """
    ratio = log_posterior(outputs.noise, outputs.posterior) - log_normal(outputs.latents, outputs.prior)
    if outputs.upper is not None:
        upper = outputs.upper
        ratio = ratio + log_posterior(upper.noise, upper.posterior) - log_normal(upper.latents, None)
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


def loss_terms(loss: LossConfig, outputs: Outputs, images: Array) -> Terms:
    """Total, reconstruction and KL, shape (batch,) each: the negative ELBO where beta is 1; an AE's KL is 0.

    Several draws are averaged. The KL is exact for codes and, unless it is to be sampled, for one Gaussian layer; for
    two layers it is estimated from the draws.
    """
    reconstruction = reconstruction_terms(loss, outputs, images)
    mean, log_std = outputs.posterior
    if outputs.codes is not None:
        kl = outputs.codes.nats
    elif log_std is None:
        kl = torch.zeros_like(mean[:, 0])
    elif outputs.upper is not None or loss.kl == "sampled":
        kl = log_ratio(outputs)
    else:
        kl = KLS[loss.kl](mean, log_std)
    if reconstruction.ndim > 1:
        reconstruction, kl = reconstruction.mean(1), kl.mean(1) if kl.ndim > 1 else kl
    return Terms(reconstruction + loss.beta * kl, reconstruction, kl)
