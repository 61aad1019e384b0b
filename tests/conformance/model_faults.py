"""Kinds of faults in a model or its loss: each function gives what to plant (see planting.py), for either half.

`change` gets the original and gives what stands in its place; `f` holds the framework's array functions.
"""

from __future__ import annotations

from vae_common.conformance.engine.faults import everywhere
from vae_common.contracts import Posterior, StochasticLayer


def kl(change):
    """Another KL of each latent to the standard normal, of mean and log sigma."""

    def plant(half, f):
        standard = half.distributions.StandardNormal
        original = standard.exact_kls
        changed = change(lambda mean, log_std: original(standard(), Posterior(mean, log_std)), f)
        return [(standard, "exact_kls", lambda self, posterior: changed(*posterior))]

    return plant


def reconstruction(kind, change):
    def plant(half, f):
        table = half.likelihoods.LIKELIHOODS
        return [(table, kind, change(table[kind], f))]

    return plant


def posterior(change):
    def plant(half, f):
        encode = half.VAE.encode
        return [(half.VAE, "encode", lambda self, images, labels=None: change(encode(self, images, labels)))]

    return plant


def latents(change):
    """Another reparameterization: `change(posterior, noise, functions)` gives the latents."""

    def plant(half, f):
        def forward(self, images, noise, labels=None):
            posterior = self.encode(images, labels)
            drawn = change(posterior, noise, f)
            return self.outputs(drawn, labels, layers=(StochasticLayer(posterior, self.prior(), drawn, noise),))

        return [(half.VAE, f.call, forward)]

    return plant


def terms(change):
    def plant(half, f):
        original = half.losses.loss_terms

        def loss_terms(loss, outputs, images):
            return change(original(loss, outputs, images), loss)

        return everywhere(half, "loss_terms", loss_terms)

    return plant


def clamped_logits(most):
    def plant(half, f):
        decoder = half.layers.Decoder
        original = getattr(decoder, f.call)
        return [
            (decoder, f.call, lambda self, latents, labels=None: f.clip(original(self, latents, labels), -most, most))
        ]

    return plant


def encoding(change):
    def plant(half, f):
        original = half.encode
        return everywhere(half, "encode", lambda model, images, labels=None: change(original(model, images, labels)))

    return plant


def without_sigmoid(half, f):
    return [(half.inference, "pixel_means", lambda logits, reconstruction: logits)]


def without_bias(half, f):
    decoder = half.layers.Decoder
    original = getattr(decoder, f.call)

    def forward(self, latents, labels=None):
        return original(self, latents, labels) - self.logits.bias.reshape(self.image_shape)

    return [(decoder, f.call, forward)]


def channels_first(half, f):
    encoder = half.layers.Encoder
    original = getattr(encoder, f.call)
    axes = (0, 3, 1, 2)

    def forward(self, images, labels=None):
        swapped = images.transpose(axes) if f.jax else images.permute(axes)
        return original(self, swapped, labels)

    return [(encoder, f.call, forward)]


def activation(name, function):
    return lambda half, f: [(half.layers.ACTIVATIONS, name, lambda x: function(x, f))]


def at_the_mean(posterior, noise, f):
    return posterior.mean + 0 * noise


def clipped(original, f):
    def bernoulli(logits, images, log_scale=None):
        p = f.clip(f.sigmoid(logits), 1e-7, 1 - 1e-7)
        return -(images * f.log(p) + (1 - images) * f.log(1 - p)).sum((1, 2, 3))

    return bernoulli
