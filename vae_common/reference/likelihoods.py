"""The likelihoods in float64 NumPy, for reference/model.py, from the textbook's formulas."""

from __future__ import annotations

import math
from typing import Any

import autograd.numpy as np
from autograd.scipy import special
from autograd.tracer import getval

from vae_common.config import LossConfig
from vae_common.contracts import Outputs


def negative_log_likelihood(loss: LossConfig, outputs: Outputs, images: Any) -> Any:
    """Of every draw, summed over pixels, (batch[, samples])."""
    logits, x = outputs.logits, np.asarray(images, float)
    if logits.ndim > x.ndim:
        x = x[:, None]
    return np.sum(LIKELIHOODS[loss.reconstruction](loss, logits, x, outputs.log_scale), (-3, -2, -1))


def _bernoulli(loss: LossConfig, logits: Any, x: Any, log_scale: Any) -> Any:
    return np.logaddexp(0, logits) - x * logits


def _continuous_bernoulli(loss: LossConfig, logits: Any, x: Any, log_scale: Any) -> Any:
    return _log_partition(logits) - x * logits


def _squared_error(loss: LossConfig, logits: Any, x: Any, log_scale: Any) -> Any:
    return (x - special.expit(logits)) ** 2


def _normal(errors: Any, variance: Any) -> Any:
    return errors**2 / (2 * variance) + np.log(2 * math.pi * variance) / 2


def _gaussian(loss: LossConfig, logits: Any, x: Any, log_scale: Any) -> Any:
    return _normal(x - special.expit(logits), loss.sigma**2)


def _linear_gaussian(loss: LossConfig, outputs: Any, x: Any, log_scale: Any) -> Any:
    return _normal(2 * x - 1 - outputs, (2 * loss.sigma) ** 2) - math.log(2)


def _learned_gaussian(loss: LossConfig, logits: Any, x: Any, log_scale: Any) -> Any:
    return _normal(x - special.expit(logits), np.exp(2 * log_scale))


def _optimal_gaussian(loss: LossConfig, logits: Any, x: Any, log_scale: Any) -> Any:
    errors = x - special.expit(logits)
    return _normal(errors, np.mean(errors**2, (-3, -2, -1), keepdims=True))


def pixel_means(logits: Any, reconstruction: str) -> Any:
    """Each pixel's mean."""
    if reconstruction == "linear_gaussian":
        return np.minimum(np.maximum(logits, -1), 1) / 2 + 0.5
    if reconstruction != "continuous_bernoulli":
        return special.expit(logits)
    near = np.abs(logits) < 0.3
    small, large = np.where(near, logits, 0), np.where(near, 1.0, logits)
    terms = ((1, 12), (-1, 720), (1, 30240), (-1, 1209600), (1, 47900160))  # Bernoulli numbers over factorials
    series = 0.5 + sum(sign * small ** (2 * i + 1) / over for i, (sign, over) in enumerate(terms))
    with np.errstate(over="ignore"):
        return np.where(near, series, 1 / (1 - np.exp(-large)) - 1 / large)


def _log_partition(logits: Any) -> Any:
    """log of the integral of exp(x logit) over x in [0, 1]: log((e^t - 1) / t) with t > 0, by symmetry for t < 0."""
    plain = getval(logits)
    t = np.where(plain >= 0, logits, -logits)
    near = np.abs(plain) < 1
    large = np.where(near, 1.0, t)
    small = np.where(near, t, 0.0)
    rest = np.where(near, np.log1p(_mean_excess(small)), large + np.log(-np.expm1(-large)) - np.log(large))
    return np.where(plain >= 0, rest, rest - t)


def _mean_excess(t: Any) -> Any:
    """(e^t - 1) / t - 1 for t below 1, by its series."""
    total = 0.0
    for n in range(19, 1, -1):
        total = t / n * (1 + total)
    return total


def _discretized_logistic(loss: LossConfig, logits: Any, x: Any, log_scale: Any) -> Any:
    """-log of the logistic's mass between half a level below and half a level above, the last bins open.

    The mass is sinh(w) / (cosh(w) + cosh(u)) for a bin of half-width w (in scales) around u.
    """
    errors, scale = x - special.expit(logits), np.exp(log_scale)
    half, u = 1 / 510 / scale, errors / scale
    size = np.abs(u)
    log_cosh_sum = np.logaddexp(np.logaddexp(half, -half), np.logaddexp(size, -size))
    inner = log_cosh_sum - half - np.log(-np.expm1(-2 * half))
    outer = np.where(x <= 0, np.logaddexp(0, -u - half), np.logaddexp(0, u - half))
    return np.where((x <= 0) | (x >= 1), outer, inner)


LIKELIHOODS = {
    "bernoulli": _bernoulli,
    "squared_error": _squared_error,
    "gaussian": _gaussian,
    "linear_gaussian": _linear_gaussian,
    "learned_gaussian": _learned_gaussian,
    "optimal_gaussian": _optimal_gaussian,
    "continuous_bernoulli": _continuous_bernoulli,
    "discretized_logistic": _discretized_logistic,
}
"""Each pixel's negative log-likelihood, of the loss's settings, the logits, the pixels and the scale's logarithm."""
