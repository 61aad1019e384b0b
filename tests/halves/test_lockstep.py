"""The same seed gives the same experiment: both halves, step by step, in float64."""

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import COMMON, HALVES, term_rows
from vae_common import randomness, reference
from vae_common.config import Config, DataConfig, LossConfig, TrainingConfig
from vae_common.data.seen import training_images
from vae_common.reference import training as reference_training

LOSSES = {
    "bernoulli": LossConfig(),
    "tutorial": LossConfig(reconstruction="squared_error", kl="tutorial", reduction="sum"),
}


def run(half, config, images, epochs):
    """Every step's terms, (3, steps), and the final canonical arrays."""
    state, placed, steps = half.create_state(config), half.place_images(images, config), []
    for epoch in range(epochs):
        state, terms = half.train_epoch(state, placed, half.epoch_draws(config, epoch, len(images)))
        steps.append(term_rows(terms))
    return np.concatenate(steps, axis=1), half.state_to_arrays(state)


def assert_lockstep(a, b):
    """Losses at every step within 1e-11 relative (KL 1e-10), parameters at the end within 1e-7 Adam steps."""
    (a_terms, a_arrays), (b_terms, b_arrays) = a, b
    assert a_terms.dtype == b_terms.dtype == np.float64
    assert np.isfinite(a_terms).all()
    for x, y, tolerance in zip(a_terms, b_terms, (1e-11, 1e-11, 1e-10)):
        assert (np.abs(x - y) <= tolerance * np.abs(y)).all()
    assert a_arrays.keys() == b_arrays.keys()
    assert a_arrays["adam.step"] == b_arrays["adam.step"] == a_terms.shape[1]
    for name in a_arrays:
        unit = np.abs(b_arrays[name]).max() * 1e-3 if name.startswith("adam.") else 1e-3
        assert np.abs(a_arrays[name] - b_arrays[name]).max() <= 1e-7 * unit


@pytest.mark.parametrize(
    ("model", "loss", "epochs"),
    [("vae", "bernoulli", 10), ("vae", "tutorial", 3), ("ae", "tutorial", 3)]
    + [(model, "bernoulli", 3) for model in COMMON if model != "vae"],
)
def test_many_steps_of_the_full_size_model(digits, model, loss, epochs):
    config = Config(seed=3, loss=LOSSES[loss], training=TrainingConfig(precision="float64")).of_model(model)
    runs = [run(half, config, digits.train.images, epochs) for half in HALVES.values()]
    assert runs[0][0].shape == (3, 11 * epochs)
    assert_lockstep(*runs)
    assert runs[0][0][0, -1] < 0.75 * runs[0][0][0, 0]  # and it learns


@pytest.mark.parametrize("binarization", ["threshold", "static", "dynamic"])
def test_binarized(small, binarization):
    config = small_config(data=DataConfig(binarization=binarization))
    images = training_images(small, binarization)
    assert_lockstep(*(run(half, config, images, 2) for half in HALVES.values()))


def test_another_seed_is_another_experiment(half, small):
    """The negative control: what passes above is not a comparison that always passes."""
    runs = [run(half, small_config(seed=seed), small.train.images, 1) for seed in (0, 1)]
    with pytest.raises(AssertionError):
        assert_lockstep(*runs)


@pytest.mark.parametrize("model", COMMON)
def test_train_epoch_is_train_step_repeated_and_the_reference(half, small, model):
    config = small_config(model)
    terms, arrays = run(half, config, small.train.images, 1)
    draws = randomness.epoch_draws(config, 0, len(small.train))
    state = half.create_state(config)
    weights = half.to_arrays(state.model)
    first = second = {name: np.zeros_like(w) for name, w in weights.items()}
    on_device = half.epoch_draws(config, 0, len(small.train))
    placed = half.place_images(small.train.images, config)
    for step, order in enumerate(draws.order):
        images = small.train.images[order] / 255
        expected, gradients = reference.terms_and_gradients(config, weights, images, draws.noise[step])
        weights, first, second = reference_training.adam(config, weights, gradients, first, second, step + 1)
        with half.precision("float64"):
            batch = half.prepare_images(placed[on_device.order[step]], None, on_device.noise.dtype)
        state, now = half.train_step(state, batch, on_device.noise[step])
        np.testing.assert_allclose(term_rows(now), terms[:, step], rtol=1e-12)
        np.testing.assert_allclose(terms[:, step], term_rows(expected), rtol=1e-11)
    for name, weight in weights.items():
        assert np.abs(arrays[name] - weight).max() < 1e-7 * 1e-3
