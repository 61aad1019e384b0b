"""The same maths once more, in float64 NumPy: the oracle that both halves are held against."""

from vae_common.reference.likelihoods import pixel_means
from vae_common.reference.model import (
    batch_loss,
    decode,
    encode,
    forward,
    gradients,
    knows,
    loss_terms,
    sample,
    terms_and_gradients,
)
from vae_common.reference.networks import activate, shapes

__all__ = [
    "activate",
    "batch_loss",
    "decode",
    "encode",
    "forward",
    "gradients",
    "knows",
    "loss_terms",
    "pixel_means",
    "sample",
    "shapes",
    "terms_and_gradients",
]
