"""Ladders of one to eight layers, dense and convolutional, with what is there layer by layer."""

import numpy as np
import pytest

from tests.conformance.suite import eroded, images_for, tiny_config
from tests.conftest import HALVES
from vae_common.conformance.checks import input_checks, pass_checks, step_checks, use_checks
from vae_common.conformance.lockstep import lockstep
from vae_common.conformance.oracle import oracle_for
from vae_common.conformance.states import injected_states, training_data
from vae_common.contracts import kl_of_layers
from vae_common.errors import InputError

CASES = {
    "1 layer": (1, {}, {}),
    "2 layers, convolutions": (2, {"channels": (4, 5)}, {}),
    "5 layers, IWAE of three draws": (5, {"posterior_head": "log_variance"}, {"objective": "iwae", "samples": 3}),
    "8 layers, free bits, staggered": (8, {}, {"free_bits": 0.05, "kl_warmup": 15, "kl_stagger": 4}),
    "3 layers, staggered, several draws": (3, {"classes": 3}, {"kl_warmup": 15, "kl_stagger": 6, "samples": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_halves_and_the_oracle_agree(case):
    layers, network, loss = CASES[case]
    # Few pixels: an importance weight is as exact as its logarithm (see covering.py).
    shape = (4, 4, 1)
    config = tiny_config("ladder_vae", options={"loss": loss}, image_shape=shape, ladder_layers=layers, **network)
    images, oracle, moving = images_for(config), oracle_for(HALVES, config), {}
    data = training_data(config, images)
    found = list(input_checks(HALVES, config, data))
    for state in injected_states(oracle, config, data):
        found += pass_checks(HALVES, config, state, moving)
        found += step_checks(HALVES, config, state) if state.updates else []
    found += use_checks(moving, config, oracle.shapes)
    found += lockstep(HALVES, config, images, 5).checks()
    wrong = [check for check in found if not check.passed]
    assert not wrong, sorted(wrong, key=lambda check: -check.ratio)[:5]
    # Far out, importance weights are the last places of hundreds of nats, whose gradients eight layers pass on.
    assert not eroded([check for check in found if "extreme" not in check.where], "float64")


def test_each_layers_kl_is_reported_and_adds_up(half):
    config = tiny_config("ladder_vae", ladder_layers=4)
    binary = (images_for(config) > 127).astype(np.float64)
    terms = half.evaluate(half.create_model(config), binary, config)
    each = kl_of_layers(terms)
    assert len(each) == 4
    assert min(kl.min() for kl in each) > 0
    np.testing.assert_allclose(sum(each), terms.kl, rtol=1e-12)


def test_a_stagger_holds_lower_layers_back():
    """At the first step only the top layer's KL costs anything; far on, all of them do."""
    half = HALVES["torch"]
    config = tiny_config("ladder_vae", options={"loss": {"kl_warmup": 10, "kl_stagger": 10}})
    rng = np.random.default_rng(0)
    batch = rng.random((9, *config.image_shape)), rng.standard_normal((9, config.noise_dim))
    state = half.create_state(config)
    arrays = half.state_to_arrays(state)
    for step, weights in ((0, (0.1, 0, 0)), (14, (1, 0.5, 0)), (100, (1, 1, 1))):
        moved = half.state_from_arrays(config, arrays | {"adam.step": np.array(step, np.int64)})
        _, terms = half.gradients(moved, *batch)
        each = kl_of_layers(terms)
        expected = terms.reconstruction + sum(weight * kl for weight, kl in zip(weights, each))
        np.testing.assert_allclose(terms.objective, expected, rtol=1e-12)


def test_what_is_drawn_goes_by_the_layers_above(half):
    """Other noise of the top layer changes all that is decoded, other noise of the lowest only its own latents."""
    model = half.create_model(config := tiny_config("ladder_vae"))
    noise = np.random.default_rng(0).standard_normal((2, config.noise_dim))
    images = images_for(config)[:2]
    first = half.forward(model, images, noise).latents
    for place, changed in ((0, 9), (6, 3)):
        other = noise.copy()
        other[:, place : place + 3] += 1
        apart = (half.forward(model, images, other).latents != first).any(0)
        assert apart.sum() == changed
        assert apart[place:].all()


def test_a_stagger_without_a_warm_up_is_refused():
    with pytest.raises(InputError, match="kl_stagger: received 4, expected 0 without kl_warmup"):
        tiny_config("ladder_vae", options={"loss": {"kl_stagger": 4}})
