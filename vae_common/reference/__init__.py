"""The same maths once more, in float64 NumPy: the oracle that both halves are held against."""

from vae_common.reference.likelihoods import pixel_means
from vae_common.reference.model import decode, encode, forward, knows, sample, shapes, starts
from vae_common.reference.networks import activate
from vae_common.reference.objectives import batch_loss, gradients, log_prior, loss_terms, terms_and_gradients

__all__ = [
    "activate",
    "batch_loss",
    "decode",
    "encode",
    "forward",
    "gradients",
    "knows",
    "log_prior",
    "loss_terms",
    "pixel_means",
    "sample",
    "shapes",
    "starts",
    "terms_and_gradients",
]
