"""Distributions of latents in float64 NumPy, from the textbook's formulas."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import autograd.numpy as np
from autograd.scipy import special
from scipy.special import ndtr

from vae_common.contracts import Posterior


class Normal(NamedTuple):
    """Independent Gaussians; `exact` says whether the KL to them may be taken exactly."""

    mean: Any = 0.0
    log_std: Any = 0.0
    exact: bool = True

    def sample(self, noise: Any) -> Any:
        """Of standard-normal noise."""
        return self.mean + np.exp(self.log_std) * noise

    def log_density(self, latents: Any) -> Any:
        """In nats, summed over the last axis; where each image has several draws, of all of them."""
        mean, log_std = self.mean, self.log_std
        if np.ndim(mean) == 2 and np.ndim(latents) == 3:
            mean, log_std = mean[:, None], log_std[:, None]
        return np.sum(log_normal(latents, mean, log_std), -1)

    def exact_kls(self, posterior: Posterior) -> Any:
        """KL of each of the posterior's Gaussians to these."""
        mean, log_std = posterior
        ratio = np.exp(2 * (log_std - self.log_std))
        return (ratio + (mean - self.mean) ** 2 * np.exp(-2 * self.log_std) - 1) / 2 - (log_std - self.log_std)


class MixtureOfNormals(NamedTuple):
    """sum_k p_k N(mean_k, exp(log_std_k)^2), with the logarithms of p up to a constant."""

    logits: Any
    mean: Any
    log_std: Any
    exact: bool = False

    def sample(self, noise: Any) -> Any:
        """Of standard-normal noise (N, n + 1): component k where the first number's probability is in its share."""
        shares = np.exp(self.logits - special.logsumexp(self.logits))
        ends = np.cumsum(shares)
        ends[-1] = 1.0
        chosen = np.searchsorted(ends, ndtr(noise[:, 0]))
        return self.mean[chosen] + np.exp(self.log_std[chosen]) * noise[:, 1:]

    def log_density(self, latents: Any) -> Any:
        """In nats, summed over the last axis inside each component."""
        total = special.logsumexp(self.logits)
        each = [
            self.logits[k] - total + np.sum(log_normal(latents, self.mean[k], self.log_std[k]), -1)
            for k in range(len(self.logits))
        ]
        return special.logsumexp(np.stack(each), 0)


def log_normal(latents: Any, mean: Any, log_std: Any) -> Any:
    """log N(latents; mean, exp(log_std)^2) of each number."""
    variance = np.exp(2 * log_std)
    return -((latents - mean) ** 2 / variance + 2 * log_std + math.log(2 * math.pi)) / 2
