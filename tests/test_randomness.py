"""The shared randomness: reproducible, independent between streams, of the right distribution."""

import dataclasses

import numpy as np
import pytest

from tests.configs import small_config
from vae_common import randomness, reference
from vae_common.config import DataConfig
from vae_common.errors import InputError

pytestmark = pytest.mark.quick

EXPECTED_NORMALS = [1.9271009485645396, -1.8960683805465481, 0.03152403809743468]
EXPECTED_ORDER = [3, 1, 4, 2, 0, 5]


def test_draws_are_a_function_of_seed_and_epoch():
    config = small_config(data=DataConfig(binarization="dynamic"))
    first, again = (randomness.epoch_draws(config, 3, 100) for _ in range(2))
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    for other in (
        randomness.epoch_draws(config, 4, 100),
        randomness.epoch_draws(dataclasses.replace(config, seed=1), 3, 100),
    ):
        for a, b in zip(first, other):
            assert not np.array_equal(a, b)


def test_numpy_still_draws_the_same_numbers():
    """NumPy may change a distribution's stream between versions; then seeds would mean other runs."""
    rng = randomness.generator(5, "noise", 2)
    np.testing.assert_allclose(rng.standard_normal(3), EXPECTED_NORMALS, rtol=1e-15)
    assert randomness.generator(5, "order", 2).permutation(6).tolist() == EXPECTED_ORDER


def test_an_epoch_is_a_permutation_without_its_rest():
    order = randomness.epoch_draws(small_config(), 0, 107).order
    assert order.shape == (5, 20)
    assert order.dtype == np.int32
    assert len(np.unique(order)) == 100
    assert order.min() >= 0
    assert order.max() < 107


def test_weights_are_uniform_on_one_over_root_fan_in():
    shapes = reference.shapes(small_config())
    weights = randomness.initial_weights(shapes, seed=0)
    assert {name: w.shape for name, w in weights.items()} == shapes
    for name, bound in (("encoder.hidden.0", 784**-0.5), ("decoder.logits", 24**-0.5)):
        for kind in ("weight", "bias"):
            values = weights[f"{name}.{kind}"]
            assert bound * 0.8 < np.abs(values).max() <= bound
    big = weights["encoder.hidden.0.weight"]
    assert big.std() == pytest.approx(784**-0.5 / 3**0.5, rel=0.02)
    assert len({w.flat[0] for w in weights.values()}) == len(weights)


def test_a_new_layer_leaves_the_others_alone():
    few = randomness.initial_weights({"a.weight": (2, 3)}, 7)
    more = randomness.initial_weights({"b.weight": (4, 4), "a.weight": (2, 3)}, 7)
    np.testing.assert_array_equal(few["a.weight"], more["a.weight"])


def test_thresholds_make_pixels_with_their_grey_value_as_probability():
    thresholds = randomness.static_thresholds("test", (200_000,))
    assert thresholds.max() == 254
    for value in (0, 1, 128, 254, 255):
        share = (value > thresholds).mean()
        assert share == pytest.approx(value / 255, abs=0.005)
    assert not (thresholds < 0).any()
    assert (thresholds < 255).all()


def test_too_few_images_for_a_batch():
    with pytest.raises(InputError, match="at most the 19 training images"):
        randomness.steps_per_epoch(19, 20)
