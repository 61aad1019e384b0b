"""T0 to T5 over the registry of models, losses, activations, dtypes and shapes."""

import json
from dataclasses import replace

import pytest
import torch

from tests.conformance.suite import EROSION, LOSSES, USED, assert_conformant, images_for, tiny_config
from tests.conftest import HALVES, ROOT
from vae_common.config import Config, TrainingConfig
from vae_common.config.registry import MODELS
from vae_common.conformance.checks import TIERS, epoch_checks
from vae_common.conformance.lockstep import lockstep, tier_checks
from vae_common.conformance.states import training_data

RECORD = ROOT / "results" / "conformance.json"


PAIRS = [
    (model, loss)
    for model in MODELS
    for loss, of in LOSSES.items()
    if of.kl == "gaussian" or MODELS[model].latents in ("none", "gaussian")  # others refuse the tutorial's KL
]


@pytest.mark.parametrize(("model", "loss"), PAIRS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_models_and_losses(model, loss, dtype):
    config = tiny_config(model, loss, dtype)
    checks = tier_checks(HALVES, config, images_for(config), steps=40 if dtype == "float64" else 10)
    assert_conformant(checks, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "gelu", "silu"])
def test_activations(activation, dtype):
    config = tiny_config(activation=activation, dtype=dtype, hidden=(10, 1))
    checks = tier_checks(HALVES, config, images_for(config), steps=10)
    assert_conformant(checks, dtype)


@pytest.mark.parametrize("hidden", [(), (9, 8, 7, 6, 5)])
def test_depths(hidden):
    config = tiny_config(hidden=hidden)
    assert_conformant(tier_checks(HALVES, config, images_for(config), steps=10), "float64")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", MODELS)
def test_full_size(digits, model, dtype):
    """784-512-2, ReLU, batch 128, on real images; in float32 ten steps."""
    config = Config(model=model, training=TrainingConfig(precision=dtype))
    checks = tier_checks(HALVES, config, digits.train.images, steps=10)
    assert_conformant(checks, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("execution", ["eager", "compile", "graph"])
def test_executions(execution, dtype):
    """T5: whole epochs against the reference, however they are run (`auto` is what every other test has)."""
    if execution == "graph" and not torch.cuda.is_available():
        pytest.skip("no CUDA device; what surrounds the capture is tested in test_execution.py")
    config = tiny_config(dtype=dtype)
    config = replace(config, training=replace(config.training, execution=execution))
    checks = [
        *epoch_checks(HALVES, config, training_data(config, images_for(config)), 40 if dtype == "float64" else 10)
    ]
    assert {check.tier for check in checks} == {"T5"}
    assert all(check.passed for check in checks), checks
    assert dtype == "float32" or max(check.ratio for check in checks) < EROSION


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_hundred_steps(dtype):
    """T5 as far as its limits go: in float32 they end there."""
    config = tiny_config(dtype=dtype)
    images = images_for(config)
    checks = lockstep(HALVES, config, images, 100).checks() + [
        *epoch_checks(HALVES, config, training_data(config, images), 100)
    ]
    assert all(check.passed for check in checks), checks
    assert dtype == "float32" or max(check.ratio for check in checks) < EROSION


def test_the_record_of_what_is_used(request):
    """With --record the largest share of its tolerance that each tier used is written down."""
    if request.config.getoption("--record"):
        text = {dtype: {tier: float(f"{used:.2g}") for tier, used in of.items()} for dtype, of in USED.items()}
        RECORD.write_text(json.dumps(text, indent=1) + "\n")
    committed = json.loads(RECORD.read_text())
    assert set(committed) == {"float32", "float64"}
    assert all(used < EROSION for used in committed["float64"].values())
    assert set(TIERS) == set(committed["float64"]) == set(committed["float32"])
