"""Kinds of faults: each function gives what to plant (see plants.py), for either half.

`change` gets the original and gives what stands in its place; `f` holds the framework's array functions.
"""

from __future__ import annotations

import numpy as np

from tests.conformance.adams import jax_adam, torch_adam
from tests.conformance.plants import everywhere
from vae_common.contracts import Outputs, Terms


def kl(change):
    return lambda half, f: [(half.losses.KLS, "gaussian", change(half.losses.KLS["gaussian"], f))]


def reconstruction(kind, change):
    def plant(half, f):
        table = half.losses.RECONSTRUCTIONS
        return [(table, kind, change(table[kind], f))]

    return plant


def posterior(change):
    def plant(half, f):
        encode = half.VAE.encode
        return [(half.VAE, "encode", lambda self, images: change(encode(self, images)))]

    return plant


def latents(change):
    """Another reparameterization: `change(posterior, noise, functions)` gives the latents."""

    def plant(half, f):
        def forward(self, images, noise):
            posterior = self.encode(images)
            latents = change(posterior, noise, f)
            return Outputs(self.decode(latents), posterior, latents)

        return [(half.VAE, f.call, forward)]

    return plant


def terms(change):
    def plant(half, f):
        original = half.losses.loss_terms

        def loss_terms(loss, outputs, images):
            return change(original(loss, outputs, images), loss)

        return everywhere(half, "loss_terms", loss_terms)

    return plant


def optimizer(**faults):
    return lambda half, f: [(half.training, "_adam", (jax_adam if f.jax else torch_adam)(**faults))]


def state_config(change):
    """The half trains under another config than it was given."""

    def plant(half, f):
        create, load = half.create_state, half.state_from_arrays
        return everywhere(half, "create_state", lambda config: create(change(config))) + everywhere(
            half, "state_from_arrays", lambda config, arrays: load(change(config), arrays)
        )

    return plant


def drawing(**changes):
    def plant(half, f):
        original = half.epoch_draws

        def epoch_draws(config, epoch, images):
            draws = original(config, epoch, images)
            return draws._replace(**{kind: change(getattr(draws, kind), f) for kind, change in changes.items()})

        return everywhere(half, "epoch_draws", epoch_draws)

    return plant


def stale(x, f):
    return x[[0] * len(x)] if not f.jax else x[np.zeros(len(x), int)]


def resuming(change):
    def plant(half, f):
        original = half.state_from_arrays

        def state_from_arrays(config, arrays):
            return original(config, {name: change(name, a) for name, a in arrays.items()})

        return everywhere(half, "state_from_arrays", state_from_arrays)

    return plant


def loading(change):
    def plant(half, f):
        original = half.load_arrays

        def load_arrays(model, arrays, dtype, device):
            return original(model, {name: change(name, a) for name, a in arrays.items()}, dtype, device)

        return everywhere(half, "load_arrays", load_arrays)

    return plant


def preparing(change):
    def plant(half, f):
        original = half.prepare_images
        prepare = lambda images, thresholds, dtype: change(original, images, thresholds, dtype)  # noqa: E731
        return everywhere(half, "prepare_images", prepare)

    return plant


def reshaped(array):
    return np.ascontiguousarray(array.T).reshape(array.shape)


def without_bias(half, f):
    decoder = half.models.networks.Decoder
    original = getattr(decoder, f.call)

    def forward(self, latents):
        return original(self, latents) - self.logits.bias.reshape(self.image_shape)

    return [(decoder, f.call, forward)]


def channels_first(half, f):
    encoder = half.models.networks.Encoder
    original = getattr(encoder, f.call)
    axes = (0, 3, 1, 2)

    def forward(self, images):
        swapped = images.transpose(axes) if f.jax else images.permute(axes)
        return original(self, swapped)

    return [(encoder, f.call, forward)]


def activation(name, function):
    return lambda half, f: [(half.models.networks.ACTIVATIONS, name, lambda x: function(x, f))]


def at_the_mean(posterior, noise, f):
    return posterior.mean + 0 * noise


def evaluate_mean(half, f):
    original = half.evaluate
    from vae_common import randomness

    def evaluate(model, images, config):
        draw, randomness.evaluation_noise = randomness.evaluation_noise, lambda n, d: np.zeros((n, d))
        try:
            return original(model, images, config)
        finally:
            randomness.evaluation_noise = draw

    return everywhere(half, "evaluate", evaluate)


def drop_last(half, f):
    original = half.evaluate
    return everywhere(
        half, "evaluate", lambda model, images, config: Terms(*(t[:-1] for t in original(model, images, config)))
    )


def clipped(original, f):
    def bernoulli(logits, images):
        p = f.clip(f.sigmoid(logits), 1e-7, 1 - 1e-7)
        return -(images * f.log(p) + (1 - images) * f.log(1 - p)).sum((1, 2, 3))

    return bernoulli


def weights_only(change):
    return lambda name, a: a if name.startswith("adam.") else change(a)


def moments_only(prefix, change):
    return lambda name, a: change(a) if name.startswith(prefix) else a
