"""The named tuples that pass between models, losses and training, in either framework.

Every array has the batch first. An entry is None where a model has no such thing.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Posterior(NamedTuple):
    """q(z|x) = N(mean, exp(log_std)^2); an AE's point code has `log_std` None."""

    mean: Any
    """Shape (batch, latent_dim)."""
    log_std: Any
    """Shape (batch, latent_dim), or None."""


class Outputs(NamedTuple):
    """What a forward pass computes."""

    logits: Any
    """Shape (batch, height, width, channels); the pixel means are their sigmoid."""
    posterior: Posterior
    latents: Any
    """Shape (batch, latent_dim): the sample (VAE) or the code (AE) that was decoded."""


class Terms(NamedTuple):
    """The loss and its parts, per example (batch,), or averaged (). KL is positive."""

    total: Any
    reconstruction: Any
    kl: Any
