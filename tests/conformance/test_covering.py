"""Every pair of options: a covering array in float64, its main options in float32 too."""

import pytest

from tests.conformance.covering import (
    COMMON,
    DEEP,
    MAIN,
    OPTIMIZERS,
    OPTIONS,
    ROWS,
    allowed,
    covering,
    each_once,
    make,
    missing,
    name_of,
)
from tests.conformance.suite import eroded, images_for, note_use
from tests.conftest import HALVES
from vae_common.config.registry import MODELS
from vae_common.conformance.checks import adam_checks, input_checks, pass_checks, step_checks
from vae_common.conformance.lockstep import lockstep
from vae_common.conformance.operations import operation_checks
from vae_common.conformance.oracle import oracle_for
from vae_common.conformance.states import injected_states, training_data
from vae_common.errors import InputError

STEPS = 5
PAIRED = covering(MAIN)
# The other likelihoods' gradients all but vanish in the extreme state, and then are their own rounding.
SINGLE = OPTIONS | {"reconstruction": ["bernoulli", "squared_error"]}
FILLED = [filled | row for filled, row in zip(each_once(SINGLE, len(PAIRED)), PAIRED)]
IN_FLOAT32 = [row if allowed(row) else pair for row, pair in zip(FILLED, PAIRED)]


def checks(config):
    """T0 to T3, a whole step, and lockstep. (Adam by itself, inference and whole epochs: test_tiers.py.)"""
    images = images_for(config)
    data = training_data(config, images)
    yield from input_checks(HALVES, config, data)
    yield from operation_checks(HALVES, config)
    for injected in injected_states(oracle_for(HALVES, config), config, data):
        yield from pass_checks(HALVES, config, injected)
        if injected.updates:
            yield from step_checks(HALVES, config, injected)
    yield from lockstep(HALVES, config, images, STEPS).checks()


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_every_pair_of_options(row):
    found = list(checks(make(row)))
    assert {check.tier for check in found} == {"T0", "T1", "T2", "T3", "T4b", "T5"}
    note_use(found, "float64")
    wrong = [check for check in found if not check.passed]
    assert not wrong, sorted(wrong, key=lambda check: -check.ratio)[:5]
    assert not eroded(found, "float64")


@pytest.mark.parametrize("row", IN_FLOAT32, ids=name_of)
def test_float32(row):
    config = make(row, "float32")
    found = list(checks(config))
    if config.objective.set_size:
        # It holds every latent against every other image's posterior. Where sigma is e^-14 float32 rounds the distance
        # away, and near 0 Adam makes whole steps of what is left of a gradient.
        found = [check for check in found if "extreme" not in check.where and check.quantity != "outliers"]
    wrong = [check for check in found if not check.passed]
    assert not wrong, sorted(wrong, key=lambda check: -check.ratio)[:5]
    note_use(found, "float32")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_optimizer(optimizer, dtype):
    """T4a: it knows no model."""
    config = make({"optimizer": optimizer}, dtype)
    *_, warm, _ = injected_states(oracle_for(HALVES, config), config, training_data(config, images_for(config)))
    found = list(adam_checks(HALVES, config, warm))
    assert found
    assert all(check.passed for check in found), found
    assert not eroded(found, dtype)
    note_use(found, dtype)


def test_no_allowed_pair_is_left_out():
    assert not missing(ROWS, COMMON)
    assert {row["model"] for row in ROWS} - set(COMMON["model"]) == set(DEEP)
    assert all(allowed(row) for row in ROWS)
    for name, values in COMMON.items():  # in float32 too, whatever goes with something
        tried = {row[name] for row in IN_FLOAT32 if name in row}
        assert name not in MAIN or tried == set(values)


def test_every_pair_is_allowed_or_refused_with_a_reason():
    """Of the models here it is known which objectives they refuse."""
    refused = set()
    for model in MODELS:
        for objective in OPTIONS["objective"]:
            if not allowed({"model": model, "objective": objective}):
                with pytest.raises(InputError, match=r"received .*, expected .*"):
                    make({"model": model, "objective": objective})
                refused.add((model, objective))
    assert {pair for pair in refused if pair[0] in ("ae", "vae", "two_layer_vae", "vq_vae")} == {
        ("ae", "iwae"),
        ("ae", "dreg"),
        ("vq_vae", "iwae"),
        ("vq_vae", "dreg"),
        ("two_layer_vae", "dreg"),
        ("ae", "beta_tc"),
        ("vq_vae", "beta_tc"),
        ("two_layer_vae", "beta_tc"),
    }
