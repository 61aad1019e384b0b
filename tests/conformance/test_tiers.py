"""T0 to T5 over the registry of models, losses, activations, dtypes and shapes."""

import pytest

from tests.conformance.suite import EROSION, LOSSES, assert_conformant, images_for, tiny_config
from tests.conftest import HALVES
from vae_common import comparison
from vae_common.configs import MODELS, Config, TrainingConfig


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_models_and_losses(model, loss, dtype):
    config = tiny_config(model, loss, dtype)
    checks = comparison.tier_checks(HALVES, config, images_for(config), steps=40 if dtype == "float64" else 10)
    assert_conformant(checks, EROSION if dtype == "float64" else 1.0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "gelu", "silu"])
def test_activations(activation, dtype):
    config = tiny_config(activation=activation, dtype=dtype, hidden=(10, 1))
    checks = comparison.tier_checks(HALVES, config, images_for(config), steps=10)
    assert_conformant(checks, EROSION if dtype == "float64" else 1.0)


@pytest.mark.parametrize("hidden", [(), (9, 8, 7, 6, 5)])
def test_depths(hidden):
    config = tiny_config(hidden=hidden)
    assert_conformant(comparison.tier_checks(HALVES, config, images_for(config), steps=10), EROSION)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", MODELS)
def test_full_size(digits, model, dtype):
    """784-512-2, ReLU, batch 128, on real images; in float32 ten steps."""
    config = Config(model=model, training=TrainingConfig(dtype=dtype))
    checks = comparison.tier_checks(HALVES, config, digits.train.images, steps=10)
    assert_conformant(checks, EROSION if dtype == "float64" else 1.0)
