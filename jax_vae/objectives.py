"""What a training step minimises, over a batch. Twin: torch_vae/objectives.py."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from vae_common.config import Config
from vae_common.contracts import Posterior, Terms, per_draw

from .device import Array
from .losses import latent_kls, log_weights, loss_terms


def batch_loss(
    model: Any, config: Config, images: Array, noise: Array, labels: Array | None, step: Array
) -> tuple[Any, Terms]:
    """The number to differentiate, and the batch's mean terms; `total` is the objective's value.

    Args:
        images: what the model sees, (batch, height, width, channels), in [0, 1].
        noise: standard normal, (batch, noise_dim), or (batch, samples, noise_dim).
        labels: integers (batch,), or None where the model is given none.
        step: updates before this one, a scalar array: what the KL's weight grows with.
    """
    loss, outputs = config.loss, model(images, noise, labels)
    terms = loss_terms(loss, outputs, images)
    means = Terms(*(term.mean() for term in terms))
    if loss.objective == "elbo":
        total = means.reconstruction + _kl_weight(loss, step, noise.dtype) * _kl_cost(loss, outputs, means)
        if outputs.codes is not None:
            total = total + _quantization(loss, outputs.codes).mean()
        differentiated = total
    else:
        weights = log_weights(loss, outputs, images).reshape(len(images), loss.samples)
        total = -(jax.nn.logsumexp(weights, 1) - math.log(loss.samples)).mean()
        differentiated = total
        if loss.objective == "dreg":
            differentiated = _doubly_reparameterised(model, loss, outputs, images, labels, weights)
    scale = len(images) if loss.reduction == "sum" else 1
    return differentiated * scale, means._replace(total=total)


def _kl_weight(loss, step, dtype):
    if not loss.kl_warmup:
        return loss.beta
    return loss.beta * jnp.clip((step.astype(dtype) + 1) / loss.kl_warmup, max=1)


def _kl_cost(loss, outputs, means):
    if not loss.free_bits:
        return means.kl
    return jnp.clip(latent_kls(*outputs.posterior).mean(0), min=loss.free_bits).sum()


def _quantization(loss, codes):
    """The codebook's and the encoder's pull on each other (van den Oord et al. 2017, eq. 3), (batch,)."""
    codebook = (jax.lax.stop_gradient(codes.inputs) - codes.vectors) ** 2
    commitment = (codes.inputs - jax.lax.stop_gradient(codes.vectors)) ** 2
    return (codebook + loss.commitment * commitment).sum(-1)


def _doubly_reparameterised(model, loss, outputs, images, labels, weights):
    """A number whose gradient is Tucker et al. 2019's (eq. 8 for the encoder, IWAE's own for the decoder).

    The decoder's gradient weighs each draw by its share of the importance weights, the encoder's by that squared,
    along the draw alone: the posterior's own parameters are held. The second factor is put onto the draws, whose
    values stay as they are; so it takes a second pass through the decoder.
    """
    shares = jax.lax.stop_gradient(jax.nn.softmax(weights, 1)).reshape(outputs.latents.shape[:-1])
    factors = shares[..., None]
    drawn = factors * outputs.latents + jax.lax.stop_gradient((1 - factors) * outputs.latents)
    held = Posterior(*(jax.lax.stop_gradient(parameter) for parameter in outputs.posterior))
    noise = outputs.noise + (drawn - jax.lax.stop_gradient(drawn)) / per_draw(jnp.exp(held.log_std), drawn)
    again = outputs._replace(logits=model.decode(drawn, labels), posterior=held, latents=drawn, noise=noise)
    return -(shares * log_weights(loss, again, images)).sum() / len(images)
