"""T0 to T5 over the registry of models, at full size, over executions and over a hundred steps."""

import json
import warnings
from dataclasses import replace

import pytest
import torch

from tests.conformance.suite import EROSION, USED, assert_conformant, few_at_a_time, images_for, tiny_config
from tests.conftest import HALVES, ROOT
from vae_common import reference
from vae_common.config import Config, TrainingConfig
from vae_common.config.registry import MODELS
from vae_common.conformance.checks import TIERS, epoch_checks
from vae_common.conformance.lockstep import lockstep, tier_checks
from vae_common.conformance.states import training_data

RECORD = ROOT / "results" / "conformance.json"


# Of the kl_autoencoder all tiers are in test_diffusers.py, beside the original.
TRIED = [name for name in MODELS if name != "kl_autoencoder"]


@pytest.mark.parametrize("model", [pytest.param(name, marks=[pytest.mark.quick] * (name == "vae")) for name in TRIED])
def test_models(model, monkeypatch):
    """On colour images, whose sides differ; what else a config turns on is in test_covering.py."""
    few_at_a_time(monkeypatch)
    config = tiny_config(model)
    if not reference.knows(config):
        warnings.warn(f"{model} is unproven against the reference, which does not know it", stacklevel=1)
    assert_conformant(tier_checks(HALVES, config, images_for(config), steps=20), "float64")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_full_size(digits, dtype):
    """784-512-2, ReLU, batch 128, on real images, ten steps."""
    config = Config(training=TrainingConfig(precision=dtype))
    assert_conformant(tier_checks(HALVES, config, digits.train.images, steps=10), dtype)


@pytest.mark.parametrize(
    ("execution", "dtype"),
    [("eager", "float64"), ("eager", "float32"), ("compile", "float64"), ("graph", "float64")],
)
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
