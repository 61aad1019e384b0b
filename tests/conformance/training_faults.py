"""Kinds of faults in training, drawing, resuming and inference: what to plant (see planting.py), for either half.

`change` gets the original and gives what stands in its place; `f` holds the framework's array functions.
"""

from __future__ import annotations

import numpy as np

from tests.conformance.faulty_adam import jax_adam, torch_adam
from vae_common.conformance.engine.faults import everywhere
from vae_common.contracts import map_arrays


def optimizer(**faults):
    return lambda half, f: everywhere(half, "adam", (jax_adam if f.jax else torch_adam)(**faults))


def state_config(change):
    """The half trains under another config than it was given."""

    def plant(half, f):
        create, load = half.create_state, half.state_from_arrays
        return everywhere(
            half, "create_state", lambda config, images=None: create(change(config), images)
        ) + everywhere(half, "state_from_arrays", lambda config, arrays: load(change(config), arrays))

    return plant


def drawing(**changes):
    def plant(half, f):
        original = half.epoch_draws

        def epoch_draws(config, epoch, images):
            draws = original(config, epoch, images)
            return draws._replace(**{kind: change(getattr(draws, kind), f) for kind, change in changes.items()})

        return everywhere(half, "epoch_draws", epoch_draws)

    return plant


def in_the_epoch(**changes):
    """The draws are right, but the loop over the steps takes others."""

    def plant(half, f):
        original = half.train_epoch

        def train_epoch(state, images, draws, labels=None):
            with half.precision(state.config.training.dtype):
                taken = draws._replace(**{kind: change(getattr(draws, kind), f) for kind, change in changes.items()})
            return original(state, images, taken, labels)

        return everywhere(half, "train_epoch", train_epoch)

    return plant


def clipped_gradients(most):
    def plant(half, f):
        original = half.step.batch_gradients

        def gradients(state, images, noise, labels=None):
            computed, terms = original(state, images, noise, labels)
            norm = sum((leaf**2).sum() for leaf in f.leaves(computed)) ** 0.5
            return f.map(lambda leaf: leaf * f.clip(most / norm, 0, 1), computed), terms

        patches = [(half.step, "batch_gradients", gradients)]
        return patches + ([(half.step, "_jitted_gradients", f.jit(gradients))] if f.jax else [])

    return plant


def terms_after_the_update(half, f):
    original = half.train_step

    def train_step(state, images, noise, labels=None):
        state, _ = original(state, images, noise, labels)
        return state, half.gradients(state, images, noise, labels)[1]

    return everywhere(half, "train_step", train_step)


def without_partial_batch(half, f):
    original, whole = half.inference._in_batches, half.inference.INFERENCE_BATCH

    def in_batches(function, model, *arrays):
        return original(
            function, model, *(None if a is None else a[: len(a) // whole * whole or len(a)] for a in arrays)
        )

    def parts_of(images, at_once):
        return parts(images[: len(images) // whole * whole or len(images)], at_once)

    parts = half.inference.parts_of
    return [(half.inference, "_in_batches", in_batches), (half.inference, "parts_of", parts_of)]


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


def evaluate_mean(half, f):
    original = half.evaluate
    from vae_common import randomness

    def evaluate(model, images, config, labels=None):
        draw, randomness.evaluation_noise = randomness.evaluation_noise, lambda n, d, rng=None: np.zeros((n, d))
        try:
            return original(model, images, config, labels)
        finally:
            randomness.evaluation_noise = draw

    return everywhere(half, "evaluate", evaluate)


def drop_last(half, f):
    original = half.evaluate
    return everywhere(half, "evaluate", lambda *given: map_arrays(lambda t: t[:-1], original(*given)))


def weights_only(change):
    return lambda name, a: a if name.startswith("adam.") else change(a)


def moments_only(prefix, change):
    return lambda name, a: change(a) if name.startswith(prefix) else a
