"""The loss, per example and per term. Twin: jax_vae/losses.py.

Every function gives one number per image, summed over its pixels or its latents; the mean over the
batch is taken once, in training.py. Conformance is against `vae_common.reference`.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from vae_common.configs import LossConfig
from vae_common.contracts import Outputs, Terms


def pixel_means(logits):
    """The decoder's pixel means, the sigmoid of its logits, in (0, 1). Any shape."""
    return torch.sigmoid(logits)


def bernoulli(logits, images):
    """Bernoulli negative log-likelihood in nats (Kingma and Welling 2014, appendix C.1).

    Computed from logits, so it stays finite where a probability rounds to 0 or 1. On grey pixels it
    is a cross-entropy and not a likelihood.
    """
    return F.binary_cross_entropy_with_logits(logits, images, reduction="none").sum((1, 2, 3))


def squared_error(logits, images):
    """The tutorial's reconstruction: a Gaussian NLL with variance 1/2, less its constant."""
    return ((images - pixel_means(logits)) ** 2).sum((1, 2, 3))


def gaussian_kl(mean, log_std):
    """KL of N(mean, exp(log_std)^2) to N(0, 1) in nats (Kingma and Welling 2014, appendix B)."""
    return ((torch.exp(2 * log_std) + mean**2 - 1) / 2 - log_std).sum(1)


def tutorial_kl(mean, log_std):
    """The tutorial's penalty. Not a KL: its minimum is at a standard deviation of 0.71, not 1."""
    return (torch.exp(2 * log_std) + mean**2 - log_std - 0.5).sum(1)


RECONSTRUCTIONS = {"bernoulli": bernoulli, "squared_error": squared_error}
KLS = {"gaussian": gaussian_kl, "tutorial": tutorial_kl}


def loss_terms(loss: LossConfig, outputs: Outputs, images) -> Terms:
    """Total, reconstruction and KL, shape (batch,) each; an AE's KL is 0."""
    reconstruction = RECONSTRUCTIONS[loss.reconstruction](outputs.logits, images)
    mean, log_std = outputs.posterior
    kl = torch.zeros_like(reconstruction) if log_std is None else KLS[loss.kl](mean, log_std)
    return Terms(reconstruction + loss.beta * kl, reconstruction, kl)
