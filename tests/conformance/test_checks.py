"""The checks themselves: what must fail does, also when they are tampered with."""

from dataclasses import replace

import numpy as np
import pytest

from tests.conformance.suite import failing_tiers, images_for, tiny_config
from tests.conftest import HALVES
from vae_common.conformance import checks
from vae_common.conformance.engine.checks import (
    Check,
    array_checks,
    chaotic_update_checks,
    difference,
    rounded_update_checks,
)
from vae_common.conformance.lockstep import lockstep, tier_checks


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([np.nan], [np.nan]),
        ([np.inf], [np.inf]),
        ([1.0, 2.0], [1.0]),
        ([], []),
        ([1.0], [1]),
        ([1.0], [0.0]),
        ([1.0], None),
    ],
)
def test_not_comparable_is_infinitely_different(a, b):
    assert difference(np.array(a), np.array(b)) == np.inf


def test_differences_do_not_cancel():
    assert difference([1.0, -1.0], [-1.0, 1.0]) == 2
    assert difference([1.0, 1e-30], [1.0, 0.0]) == 1e-30
    assert difference([3.0], [1.0], unit=0.5) == 4


def test_names_have_to_agree_and_to_exist():
    for a, b in (({}, {}), ({"w": [1.0]}, {}), ({"w": [1.0]}, {"v": [1.0]})):
        checks = array_checks("T3", "here", a, b, 1.0)
        assert len(checks) == 1
        assert not checks[0].passed
    assert not rounded_update_checks("T4a", "here", {}, {}, 2e-5, 1e-3)[0].passed
    assert not chaotic_update_checks("T4b", "here", {}, {}, {}, 1.0, 1e-3)[0].passed
    w = {"w": np.ones(3, np.float32)}
    bad = {"w": np.array([1, 1, np.nan], np.float32)}
    assert not chaotic_update_checks("T4b", "here", bad, bad, w, 1.0, 1e-3)[0].passed


def test_an_exact_check_is_exact():
    assert Check("T0", "", "", 0.0, 0).passed
    assert not Check("T0", "", "", 1e-300, 0).passed
    assert Check("T0", "", "", 1e-300, 0).ratio == np.inf


def test_a_tier_that_compares_nothing_fails(monkeypatch):
    config = tiny_config()
    monkeypatch.setattr(checks, "array_checks", lambda *args, **kwargs: [])
    with pytest.raises(AssertionError, match="compared nothing"):
        failing_tiers(tier_checks(HALVES, config, images_for(config), steps=1))


def test_lockstep_says_where_the_halves_part(monkeypatch):
    """From step 5 on one half takes larger steps: found there, in Adam, by injecting the state before."""
    config, half = tiny_config(), HALVES["torch"]
    original = half.optimizers.adam

    class Late:
        """Adam whose fifth update, and every later one, is one percent too long."""

        def __new__(cls, model, config):
            optimizer = original(model, config)
            longer = replace(
                config, training=replace(config.training, learning_rate=1.01 * config.training.learning_rate)
            )

            def late(gradients):
                count = next(iter(optimizer.state.values()))["step"]
                optimizer.config = longer if count >= 4 else config
                type(optimizer).step(optimizer, gradients)

            optimizer.step = late
            return optimizer

    monkeypatch.setattr(half.state, "adam", Late)
    result = lockstep(HALVES, config, images_for(config), 20)
    assert result.first_excess == 5
    assert result.culprit.tier == "T4a"
    assert "torch" in result.culprit.name
    monkeypatch.undo()
    clean = lockstep(HALVES, config, images_for(config), 20)
    assert (clean.first_excess, clean.culprit) == (None, None)
    assert len(clean.differences["total"]) == 20


def test_lockstep_sees_another_seed():
    config = tiny_config()

    class Other:
        """The torch half, one seed ahead."""

        def __getattr__(self, name):
            if name == "create_state":
                return lambda config, images=None: HALVES["torch"].create_state(replace(config, seed=config.seed + 1))
            return getattr(HALVES["torch"], name)

    result = lockstep({"jax": HALVES["jax"], "torch": Other()}, config, images_for(config), 5)
    assert result.first_excess == 1
    assert not all(check.passed for check in result.checks())
