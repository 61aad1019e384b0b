"""All tiers over every pair of options: a covering array in float64, its main options in float32 too."""

import pytest

from tests.conformance.covering import MAIN, OPTIONS, ROWS, allowed, covering, each_once, make, missing, name_of
from tests.conformance.suite import assert_conformant, images_for
from tests.conftest import HALVES
from vae_common.config.registry import MODELS
from vae_common.conformance.lockstep import tier_checks
from vae_common.errors import InputError

STEPS = 10
PAIRED = covering(MAIN)
# The other likelihoods' gradients all but vanish in the extreme state, and then are their own rounding.
SINGLE = OPTIONS | {"reconstruction": ["bernoulli", "squared_error"]}
FILLED = [filled | row for filled, row in zip(each_once(SINGLE, len(PAIRED)), PAIRED)]
IN_FLOAT32 = [row if allowed(row) else pair for row, pair in zip(FILLED, PAIRED)]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_every_pair_of_options(row):
    config = make(row)
    assert_conformant(tier_checks(HALVES, config, images_for(config), steps=STEPS), "float64")


@pytest.mark.parametrize("row", IN_FLOAT32, ids=name_of)
def test_float32(row):
    config = make(row, "float32")
    assert_conformant(tier_checks(HALVES, config, images_for(config), steps=STEPS), "float32")


def test_no_allowed_pair_is_left_out():
    assert not missing(ROWS, OPTIONS)
    assert all(allowed(row) for row in ROWS)
    for name, values in OPTIONS.items():  # in float32 too, whatever goes with something
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
    }
