"""What a training step minimises, over a batch. Twin: torch_vae/objectives.py.

An objective is one function of a `Batch`, in `OBJECTIVES` under its name; what is known of it beside its formula is
declared in `vae_common/config/objectives.py`. Conformance is against `vae_common.reference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_common.config import Config
from vae_common.contracts import Outputs, Posterior, Terms, kl_of_layers, per_draw

from .device import Array
from .distributed import batch_count, batch_mean, batch_means, batch_place, whole_batch
from .distributions import LOG_ROOT
from .losses import exact_kls, log_posterior, log_prior, log_weights, loss_terms
from .quantizers import use_terms


class Batch(NamedTuple):
    """What an objective is given."""

    model: Any
    config: Config
    images: Array
    """What the model saw, (batch, height, width, channels)."""
    labels: Array | None
    step: Array
    """Updates before this one, a scalar: what the KL's weight grows with."""
    outputs: Outputs
    """Of the forward pass."""
    means: Terms
    """The loss's terms, the mean per image."""


class Minimised(NamedTuple):
    """What an objective makes of a batch."""

    value: Array
    """The mean per image."""
    differentiated: Array | None = None
    """Where its gradient is that of another number: that number."""
    terms: Mapping[str, Array] | None = None
    """The named terms that it declares."""


def batch_loss(
    model: Any, config: Config, images: Array, noise: Array, labels: Array | None, step: Array
) -> tuple[Any, Terms]:
    """The number to differentiate, and the batch's mean terms, with the objective's value.

    Args:
        images: what the model sees, (batch, height, width, channels), in [0, 1].
        noise: standard normal, (batch, noise_dim), or (batch, samples, noise_dim).
        labels: integers (batch,), or None where the model is given none.
        step: updates before this one, a scalar array.
    """
    outputs = model(images, noise, labels)
    means = batch_means(loss_terms(config.loss, outputs, images))
    found = OBJECTIVES[config.loss.objective](Batch(model, config, images, labels, step, outputs, means))
    scale = batch_count(images) if config.loss.reduction == "sum" else 1
    differentiated = found.value if found.differentiated is None else found.differentiated
    more = {**(means.more or {}), **(found.terms or {})}
    if outputs.codes is not None:
        more |= use_terms(whole_batch(outputs.codes.indices), config.codes, images.dtype)
    differentiated = differentiated * scale
    for before, after in model.follow(outputs):
        # The gradient is the change, which `updated` subtracts.
        differentiated = differentiated + (before * jax.lax.stop_gradient(before - after)).sum()
    return differentiated, means._replace(objective=found.value, more=more)


def elbo(batch: Batch) -> Minimised:
    """Reconstruction + beta * KL, with warm-up and free bits; of codes also what they are penalised by."""
    loss, means, codes = batch.config.loss, batch.means, batch.outputs.codes
    value = means.reconstruction + _weighted_kl(loss, batch.outputs, means, batch.step)
    return Minimised(value if codes is None else value + batch_mean(codes.penalty))


def iwae(batch: Batch) -> Minimised:
    """The importance-weighted bound (Burda et al. 2016, eq. 8)."""
    return Minimised(_bound(_weights(batch)))


def dreg(batch: Batch) -> Minimised:
    """The same bound, with its doubly reparameterised gradient (Tucker et al. 2019)."""
    weights = _weights(batch)
    return Minimised(_bound(weights), _doubly_reparameterised(batch, weights))


def beta_tc(batch: Batch) -> Minimised:
    """Reconstruction and the KL's three parts, each with its weight (Chen et al. 2018, eq. 2 and 4).

    What is aggregated over the training set is estimated by minibatch-weighted sampling (their appendix C.1).
    """
    loss, (layer,), images = batch.config.loss, batch.outputs.layers, batch_count(batch.images)
    others, place = Posterior(*map(whole_batch, layer.posterior)), batch_place(batch.images)
    # log q(each latent of image i | image j), (i, j, n); of i itself by its noise: (z - mean) / sigma would cancel.
    apart = (layer.latents[:, None] - others.mean) / jnp.exp(others.log_std)
    itself = jnp.eye(images, dtype=bool)[place : place + len(layer.latents), :, None]
    apart = jnp.where(itself, layer.noise[:, None], apart)
    each = -(apart**2) / 2 - others.log_std - LOG_ROOT
    scale = math.log(images * batch.config.train_images)
    joint = jax.nn.logsumexp(each.sum(-1), 1) - scale
    product = (jax.nn.logsumexp(each, 1) - scale).sum(-1)
    mutual = batch_mean(log_posterior(layer) - joint)
    correlation = batch_mean(joint - product)
    dimension = batch_mean(product - log_prior(layer))
    weighted = loss.mi_weight * mutual + loss.tc_weight * correlation + loss.dimension_weight * dimension
    terms = mutual, correlation, dimension
    return Minimised(batch.means.reconstruction + weighted, terms=dict(zip(batch.config.objective.terms, terms)))


OBJECTIVES: dict[str, Callable[[Batch], Minimised]] = {"elbo": elbo, "iwae": iwae, "dreg": dreg, "beta_tc": beta_tc}


def _weighted_kl(loss, outputs, means, step):
    """What the KL costs at that step; where the warm-ups of several layers are staggered, layer by layer."""
    if not loss.kl_stagger or len(outputs.layers) == 1:
        return _kl_weight(loss, step, means.kl.dtype) * _kl_cost(loss, outputs, means)
    costs = _free_of_bits(loss, outputs) if loss.free_bits else [*kl_of_layers(means)]
    weights = [_kl_weight(loss, step - place * loss.kl_stagger, means.kl.dtype) for place in range(len(costs))]
    return sum(weight * cost for weight, cost in zip(weights, costs))


def _kl_weight(loss, step, dtype):
    if not loss.kl_warmup:
        return loss.beta
    return loss.beta * jnp.clip((step.astype(dtype) + 1) / loss.kl_warmup, min=0, max=1)


def _kl_cost(loss, outputs, means):
    return sum(_free_of_bits(loss, outputs)) if loss.free_bits else means.kl


def _free_of_bits(loss, outputs):
    """Each layer's KL, of whose latents the first `free_bits` cost nothing."""
    kls: Any = (exact_kls(layer) for layer in outputs.layers)  # known: else free bits are refused
    each = (batch_mean(of if of.ndim == 2 else of.mean(1)) for of in kls)
    return [jnp.clip(of, min=loss.free_bits).sum() for of in each]


def _weights(batch):
    """The log importance weights, (batch, samples)."""
    loss, images = batch.config.loss, batch.images
    return log_weights(loss, batch.outputs, images).reshape(len(images), loss.samples)


def _bound(weights):
    return -batch_mean(jax.nn.logsumexp(weights, 1) - math.log(weights.shape[1]))


def _doubly_reparameterised(batch, weights):
    """A number whose gradient is Tucker et al. 2019's (eq. 8 for the encoder, IWAE's own for decoder and prior).

    The decoder's gradient weighs each draw by its share of the importance weights, the encoder's by that squared,
    along the draw alone: the posterior's own parameters are held. The second factor is put onto the draws, whose
    values stay as they are; so it takes a second pass through the decoder.
    """
    outputs, (layer,) = batch.outputs, batch.outputs.layers
    shares = jax.lax.stop_gradient(jax.nn.softmax(weights, 1)).reshape(layer.latents.shape[:-1])
    factors = shares[..., None]
    drawn = factors * layer.latents + jax.lax.stop_gradient((1 - factors) * layer.latents)
    held = Posterior(*(jax.lax.stop_gradient(parameter) for parameter in layer.posterior))
    noise = layer.noise + (drawn - jax.lax.stop_gradient(drawn)) / per_draw(jnp.exp(held.log_std), drawn)
    moved = layer._replace(posterior=held, latents=drawn, noise=noise)
    again = outputs._replace(logits=batch.model.decode_flat(drawn, batch.labels), latents=drawn, layers=(moved,))
    drawn = shares * log_weights(batch.config.loss, again, batch.images)
    return -batch_mean(drawn.reshape(len(batch.images), -1).sum(1))
