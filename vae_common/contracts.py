"""The named tuples that pass between models, losses and training, in either framework.

Every array has the batch first. Where a training step draws several posterior samples, `samples` comes next: an
optional axis of latents, logits, and whatever is computed from them. An entry is None where a model has no such
thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Posterior(NamedTuple):
    """N(mean, exp(log_std)^2); a code that is no distribution has `log_std` None."""

    mean: Any
    """Shape (batch, latent_dim)."""
    log_std: Any
    """Shape (batch, latent_dim), or None."""


class UpperLayer(NamedTuple):
    """A second stochastic layer, whose prior is standard normal."""

    posterior: Posterior
    """q(latents above | latents), shape (batch[, samples], top_dim)."""
    latents: Any
    """Shape (batch[, samples], top_dim)."""
    noise: Any
    """(latents - mean) / sigma: what they were made of, of the same shape."""


class Codes(NamedTuple):
    """What a vector quantizer made of an encoder's output."""

    inputs: Any
    """The encoder's output, (batch, latent_dim)."""
    vectors: Any
    """The nearest vectors of the codebook, side by side, (batch, latent_dim)."""
    indices: Any
    """Their places in the codebook, (batch, latent_dim / code_dim), integers."""
    nats: Any
    """KL of the choice to a uniform prior over all codes, (batch,): a constant."""


class Outputs(NamedTuple):
    """What a forward pass computes."""

    logits: Any
    """Shape (batch[, samples], height, width, channels)."""
    posterior: Posterior
    """Of the latents that are decoded."""
    latents: Any
    """Shape (batch[, samples], latent_dim): the sample or the code that was decoded."""
    noise: Any = None
    """(latents - mean) / sigma: what they were made of where they were drawn, (batch[, samples], latent_dim)."""
    log_scale: Any = None
    """Logarithm of the likelihood's scale where the decoder learns it, (batch[, samples], 1, 1, 1)."""
    prior: Posterior | None = None
    """p(latents | the upper layer), where that is not the standard normal."""
    upper: UpperLayer | None = None
    codes: Codes | None = None


class Terms(NamedTuple):
    """The loss and its parts, per example (batch,), or averaged (). The KL is positive (estimated, on average)."""

    total: Any
    reconstruction: Any
    kl: Any


def per_draw(array: Any, draws: Any) -> Any:
    """An array (batch, ...) as it broadcasts to what has, or has not, an axis of draws after the batch's."""
    return array[:, None] if draws.ndim > array.ndim else array


def map_arrays(function: Callable[..., Any], *trees: Any) -> Any:
    """The function of each array of nested tuples alike; None stays None."""
    first = trees[0]
    if first is None:
        return None
    if not isinstance(first, tuple):
        return function(*trees)
    parts = [map_arrays(function, *parts) for parts in zip(*trees)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
