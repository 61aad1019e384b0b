"""The negative log-likelihood of images, for each kind of pixels. Twin: jax_vae/likelihoods.py.

One contract: `(logits, images, log_scale)` to nats per image, summed over its pixels (the last three axes of
`logits`; `images` are in [0, 1] and broadcast to them). `log_scale` broadcasts likewise; only those that have a
scale read it. Conformance is against `vae_common.reference`; that each is normalised, against quadrature.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch.nn import functional as F

from .device import Array

PIXELS = (-3, -2, -1)
LEVEL = 1 / 255  # between neighbouring 8-bit values


@cache
def _series():
    """Coefficients of log(sinh(t / 2) / (t / 2)) in powers of t^2: Bernoulli numbers B_n / (n n!) for n = 2, 4, ..."""
    from scipy import special  # only those who need it wait for it

    numbers = enumerate(special.bernoulli(20))
    return [float(number / (n * math.factorial(n))) for n, number in numbers if n and n % 2 == 0]


def bernoulli(logits: Array, images: Array, log_scale: Array | None = None) -> Array:
    """Bernoulli pixels (Kingma and Welling 2014, appendix C.1).

    Computed from logits, so it stays finite where a probability rounds to 0 or 1. On grey pixels it
    is a cross-entropy and not a likelihood.
    """
    images = images.expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, images, reduction="none").sum(PIXELS)


def squared_error(logits: Array, images: Array, log_scale: Array | None = None) -> Array:
    """The tutorial's reconstruction: a Gaussian NLL with variance 1/2, less its constant."""
    return ((images - torch.sigmoid(logits)) ** 2).sum(PIXELS)


def gaussian(logits: Array, images: Array, log_scale: Array) -> Array:
    """Gaussian pixels around the sigmoid of the logits, with standard deviation exp(log_scale)."""
    errors = (images - torch.sigmoid(logits)) / torch.exp(log_scale)
    return (errors**2 / 2 + log_scale + math.log(2 * math.pi) / 2).sum(PIXELS)


def linear_gaussian(outputs: Array, images: Array, log_scale: Array) -> Array:
    """Gaussian pixels whose mean is the decoder's output, which is in [-1, 1] as in latent-diffusion models'
    autoencoders, with standard deviation exp(log_scale)."""
    errors = (images - (outputs + 1) / 2) / torch.exp(log_scale)
    return (errors**2 / 2 + log_scale + math.log(2 * math.pi) / 2).sum(PIXELS)


def optimal_gaussian(logits: Array, images: Array, log_scale: Array | None = None) -> Array:
    """`gaussian` at the standard deviation that is best for each image (Rybkin et al. 2021, section 4.2, per image).

    No density: its scale depends on what it is asked about. It bounds that of every fixed scale from below.
    """
    mean_square = ((images - torch.sigmoid(logits)) ** 2).mean(PIXELS, keepdim=True)
    return gaussian(logits, images, torch.log(mean_square) / 2)


def continuous_bernoulli(logits: Array, images: Array, log_scale: Array | None = None) -> Array:
    """Density on [0, 1] proportional to exp(x logit) (Loaiza-Ganem and Cunningham 2019, eq. 7-9).

    Its normaliser is log((e^logit - 1) / logit) = logit / 2 + log(sinh(logit / 2) / (logit / 2)).
    """
    size = torch.abs(logits)
    near = size < 1  # where the closed form cancels
    square = torch.where(near, size, 0) ** 2
    series = 0 * square
    for coefficient in reversed(_series()):
        series = square * (series + coefficient)
    far = torch.where(near, 1, size)
    closed = far / 2 + torch.log1p(-torch.exp(-far)) - torch.log(far)
    return (logits * (0.5 - images) + torch.where(near, series, closed)).sum(PIXELS)


def discretized_logistic(logits: Array, images: Array, log_scale: Array) -> Array:
    """Probability that a logistic around the sigmoid of the logits gives to each 8-bit value (Kingma et al. 2016,
    eq. 26, with the outer bins reaching to infinity as in Salimans et al. 2017).

    From sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which no tail cancels in.
    """
    scale = torch.exp(log_scale)
    distance = images - torch.sigmoid(logits)
    below = -F.logsigmoid((distance + LEVEL / 2) / scale)
    above = -F.logsigmoid((LEVEL / 2 - distance) / scale)
    inner = -torch.log(-torch.expm1(-LEVEL / scale))
    lowest, highest = images <= 0, images >= 1
    nats = torch.where(highest, 0, below) + torch.where(lowest, 0, above)
    return (nats + torch.where(lowest | highest, 0, inner)).sum(PIXELS)


LIKELIHOODS = {
    "bernoulli": bernoulli,
    "squared_error": squared_error,
    "gaussian": gaussian,
    "learned_gaussian": gaussian,
    "linear_gaussian": linear_gaussian,
    "optimal_gaussian": optimal_gaussian,
    "continuous_bernoulli": continuous_bernoulli,
    "discretized_logistic": discretized_logistic,
}


def pixel_means(logits: Array, reconstruction: str = "bernoulli") -> Array:
    """Each pixel's mean, in (0, 1), under the likelihood of that name: the sigmoid of its logit, but for the
    continuous Bernoulli and the linear Gaussian. (Of the discretized logistic its location, which is not quite its
    mean.) Any shape."""
    if reconstruction == "linear_gaussian":
        return torch.clip((logits + 1) / 2, 0, 1)
    if reconstruction != "continuous_bernoulli":
        return torch.sigmoid(logits)
    near = torch.abs(logits) < 1
    small, far = torch.where(near, logits, 0), torch.where(near, 1, logits)
    series = 0 * small
    for order, coefficient in reversed(list(enumerate(_series(), 1))):
        series = small**2 * series + 2 * order * coefficient
    return torch.where(near, 0.5 + small * series, -1 / torch.expm1(-far) - 1 / far)
