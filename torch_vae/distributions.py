"""Priors of a layer's latents: a log density, and a sample of given noise. Twin: jax_vae/distributions.py.

A prior is a named tuple of arrays, so that compiled programs take it; its parameters have a batch axis, or none where
they are the same for all images. See `vae_common.contracts.Prior`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from vae_common.contracts import Posterior, per_draw

from .device import Array

LOG_ROOT = math.log(2 * math.pi) / 2


class StandardNormal(NamedTuple):
    """N(0, I)."""

    def log_density(self, latents: Array) -> Array:
        """Of latents (batch[, samples], n), in nats."""
        return (-(latents**2) / 2 - LOG_ROOT).sum(-1)

    def sample(self, noise: Array) -> Array:
        """The noise itself."""
        return noise

    def exact_kls(self, posterior: Posterior) -> Array:
        """KL of each latent's N(mean, exp(log_std)^2) to N(0, 1) in nats (Kingma and Welling 2014, appendix B)."""
        mean, log_std = posterior
        return (torch.exp(2 * log_std) + mean**2 - 1) / 2 - log_std


class Gaussian(NamedTuple):
    """N(mean, exp(log_std)^2), each latent by itself."""

    mean: Array
    """Shape (batch[, samples], n), or (n,)."""
    log_std: Array

    def log_density(self, latents: Array) -> Array:
        """Of latents (batch[, samples], n), in nats."""
        mean, log_std = per_draw(self.mean, latents), per_draw(self.log_std, latents)
        return (-(((latents - mean) / torch.exp(log_std)) ** 2) / 2 - log_std - LOG_ROOT).sum(-1)

    def sample(self, noise: Array) -> Array:
        """Mean + sigma * noise, of the noise's shape."""
        return per_draw(self.mean, noise) + per_draw(torch.exp(self.log_std), noise) * noise

    def exact_kls(self, posterior: Posterior) -> Array:
        """KL of each latent's Gaussian to this one in nats."""
        apart = (posterior.mean - self.mean) / torch.exp(self.log_std)
        ratio = posterior.log_std - self.log_std
        return (torch.exp(2 * ratio) + apart**2 - 1) / 2 - ratio


class OfDraws(NamedTuple):
    """A prior given what was drawn from the layer itself, so that no KL to it is exact: it is estimated."""

    prior: Any

    def log_density(self, latents: Array) -> Array:
        """The prior's own."""
        return self.prior.log_density(latents)

    def sample(self, noise: Array) -> Array:
        """The prior's own."""
        return self.prior.sample(noise)


class Mixture(NamedTuple):
    """A mixture of Gaussians, sum_k softmax(logits)_k N(mean_k, exp(log_std_k)^2), the same for all images."""

    logits: Array
    """Shape (components,)."""
    mean: Array
    """Shape (components, n)."""
    log_std: Array

    def log_density(self, latents: Array) -> Array:
        """Of latents (batch[, samples], n), in nats."""
        apart = (latents[..., None, :] - self.mean) / torch.exp(self.log_std)
        each = (-(apart**2) / 2 - self.log_std - LOG_ROOT).sum(-1)
        return torch.logsumexp(each + torch.log_softmax(self.logits, -1), -1)

    def sample(self, noise: Array) -> Array:
        """Of noise (N, n + 1): the first number chooses the component, the others draw from it."""
        edges = torch.softmax(self.logits, -1).cumsum(-1)[:-1]
        chosen = (torch.special.ndtr(noise[:, :1]) > edges).sum(-1)
        return self.mean[chosen] + torch.exp(self.log_std[chosen]) * noise[:, 1:]
