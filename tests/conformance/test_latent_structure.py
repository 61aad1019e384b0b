"""L1: the same seed gives the same latents; in float64 to rounding, in float32 the same structure."""

import numpy as np
import pytest

from tests.conftest import COMMON, HALVES, term_rows
from vae_common.config import Config, TrainingConfig
from vae_common.config.registry import MODELS
from vae_common.metrics import descriptors, similarity


def encoded(half, config, digits):
    state = half.fit(half.create_state(config), digits)
    return half.encode(state.model, digits.test.images)


@pytest.mark.parametrize("model", COMMON)
def test_float64(digits, model):
    config = Config(model=model, training=TrainingConfig(precision="float64", epochs=3))
    a, b = (encoded(half, config, digits) for half in HALVES.values())
    for x, y in zip(a, b):
        if x is not None:
            assert np.abs(x - y).max() <= 1e-10 * np.abs(y).max()


@pytest.mark.parametrize("model", COMMON)
def test_float32_after_one_epoch(digits, model):
    config = Config(model=model, training=TrainingConfig(epochs=1))
    a, b = (encoded(half, config, digits) for half in HALVES.values())
    metrics = similarity.similarities(a.mean, b.mean)
    if metrics["rsa"] is None:  # a quantizer that still gives all images one code: then both give the same
        assert MODELS[model].quantizes
        np.testing.assert_allclose(a.mean, b.mean, atol=1e-4)
        return
    for name in ("linear_cka", "rsa", "axis_correlation"):
        assert metrics[name] >= 0.998
    assert metrics["procrustes_disparity"] <= 0.003
    assert metrics["mutual_neighbours"] >= 0.75
    assert descriptors.active_units(a.mean) == descriptors.active_units(b.mean)
    other = encoded(HALVES["torch"], Config(model=model, seed=1, training=TrainingConfig(epochs=1)), digits)
    assert similarity.similarities(a.mean, other.mean)["mutual_neighbours"] < 0.75


def test_a_whole_float64_training_ends_equal(digits):
    """Every epoch of the digits experiment: both halves' test losses equal to 1e-10."""
    config = Config(training=TrainingConfig(precision="float64", epochs=20))
    ends = []
    for half in HALVES.values():
        state = half.fit(half.create_state(config), digits)
        ends.append([term.mean() for term in term_rows(half.evaluate(state.model, digits.test.images, config))])
    np.testing.assert_allclose(*ends, rtol=1e-10)


def test_five_epochs_each_in_turn_are_fifteen(digits):
    """JAX, PyTorch, JAX from each other's states: in float64 equal to 15 epochs of either to 1e-9."""

    def config(epochs):
        return Config(training=TrainingConfig(precision="float64", epochs=epochs))

    whole = [half.state_to_arrays(half.fit(half.create_state(config(15)), digits)) for half in HALVES.values()]
    arrays = HALVES["jax"].state_to_arrays(HALVES["jax"].create_state(config(5)))
    for half, epochs in ((HALVES["jax"], 5), (HALVES["torch"], 10), (HALVES["jax"], 15)):
        arrays = half.state_to_arrays(half.fit(half.state_from_arrays(config(epochs), arrays), digits))
    assert arrays["adam.step"] == whole[0]["adam.step"] == 165
    for name, array in arrays.items():
        for one in whole:
            assert np.abs(array - one[name]).max() <= 1e-9 * max(np.abs(one[name]).max(), 1e-3)
