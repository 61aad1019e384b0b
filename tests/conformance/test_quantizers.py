"""Codes of every kind: dense and on a grid, of codebooks by gradient and by moving averages, and of rounded numbers."""

import dataclasses

import numpy as np
import pytest

from tests.conformance.suite import assert_conformant, eroded, images_for, tiny_config
from tests.conftest import HALVES
from vae_common.config.registry import MODELS
from vae_common.conformance.checks import adam_checks, pass_checks, step_checks
from vae_common.conformance.lockstep import lockstep, tier_checks
from vae_common.conformance.oracle import oracle_for
from vae_common.conformance.states import injected_states, training_data
from vae_common.contracts import CODE_TERMS
from vae_common.data import datasets
from vae_common.errors import InputError

AVERAGED = {"codebook_update": "moving_average", "codebook_decay": 0.8, "restart_below": 0.5}
GRID = {"code_layout": "grid", "channels": (5, 4), "hidden": (512,), "latent_dim": 2}
CASES = {
    "dense, moving average": AVERAGED | {"latent_dim": 4, "code_dim": 2},
    "grid, gradient": GRID | {"code_dim": 3},
    "grid, moving average": GRID | AVERAGED | {"code_dim": 3, "codes": 7},
    "dense, levels": {"levels": (4, 3, 5), "codes": 64},
    "grid, levels": GRID | {"levels": (8, 5, 2), "codes": 64},
}


def config_of(case, **changes):
    """Odd heights, which the convolutions do not halve."""
    return tiny_config("vq_vae", image_shape=(7, 6, 3), **CASES[case] | changes)


@pytest.mark.parametrize("case", CASES)
def test_the_halves_and_the_oracle_agree(case):
    config = config_of(case)
    images, oracle, found = images_for(config), oracle_for(HALVES, config), []
    for state in injected_states(oracle, config, training_data(config, images)):
        found += pass_checks(HALVES, config, state)
        found += step_checks(HALVES, config, state) if state.updates else []
    found += lockstep(HALVES, config, images, 10).checks()
    wrong = [check for check in found if not check.passed]
    assert not wrong, sorted(wrong, key=lambda check: -check.ratio)[:5]
    assert not eroded(found, "float64")


def test_all_tiers_where_a_codebook_follows_the_batch():
    """Inference, whole epochs as each execution has them, resuming, and Adam beside what it leaves alone."""
    config = config_of("grid, moving average")
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, clip_norm=0.5, average=0.9))
    assert_conformant(tier_checks(HALVES, config, images_for(config), steps=6), "float64")


def test_what_follows_the_batch_is_no_business_of_adams(half):
    """Neither its moments nor the length of the gradient know of it."""
    config = config_of("dense, moving average")
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, clip_norm=1e-3))
    state = half.create_state(config)
    before = half.state_to_arrays(state)
    changes = {name: np.full_like(array, 1e6) for name, array in before.items() if name in config.followers}
    gradients = {name: np.zeros_like(before[name]) for name in half.parameter_shapes(state.model)} | changes
    gradients["decoder.logits.bias"] += 1e-5
    after = half.state_to_arrays(half.apply_gradients(state, gradients))
    for name in config.followers:
        np.testing.assert_array_equal(after[name], before[name] - 1e6)
        np.testing.assert_array_equal(after[f"adam.first.{name}"], 0 * before[name])
    np.testing.assert_allclose(after["adam.first.decoder.logits.bias"], 0.1 * 1e-5, rtol=1e-12)


def test_adam_of_a_codebook_that_follows_the_batch():
    config = config_of("dense, moving average")
    *_, warm, _ = injected_states(oracle_for(HALVES, config), config, training_data(config, images_for(config)))
    found = list(adam_checks(HALVES, config, warm))
    assert found
    assert all(check.passed for check in found), [check for check in found if not check.passed][:3]


def test_a_moving_average_is_the_mean_of_what_chose_a_vector(half):
    """With all weight on the batch every vector becomes the mean of its inputs, and one that none chose an input."""
    inputs = np.random.default_rng(0).standard_normal((8, 3, 2))
    book = np.array([[0.5, 0.5], [-0.5, -0.5], [50.0, 50.0]])
    with half.precision("float64"):
        device = half.select_device("cpu")
        on_device = [half.to_device(array, device) for array in (inputs, book, np.ones(3))]
        indices = half.quantizers.nearest(*on_device[:2])
        vectors, use = half.quantizers.moved(on_device[0], indices, *on_device[1:], 0.0, 0.1)
        found, vectors, use = (half.to_numpy(array) for array in (indices, vectors, use))
    flat, found = inputs.reshape(-1, 2), found.ravel()
    for code in (0, 1):
        np.testing.assert_allclose(vectors[code], flat[found == code].mean(0), rtol=1e-12)
        np.testing.assert_allclose(use[code], (found == code).mean() * 3, rtol=1e-12)
    np.testing.assert_array_equal(vectors[2], flat[2 * len(flat) // 3])
    assert use[2] == 1


def test_rounded_numbers_reach_every_level_and_no_other(half):
    """Numbers from far below to far above give each level once, evenly about 0, and 0 gives 0; indices are one each."""
    levels = (2, 3, 4, 5, 8)
    ramp = np.repeat(np.linspace(-20, 20, 8001)[:, None], len(levels), 1)
    with half.precision("float64"):
        device, quantizers = half.select_device("cpu"), half.quantizers
        values = half.to_numpy(quantizers.bounded(half.to_device(ramp, device), levels))
        np.testing.assert_allclose(values[4000], 0, atol=1e-12)
        rounded = np.round(values)
        scaled = half.to_numpy(quantizers.scaled(half.to_device(rounded, device), levels))
        for place, level in enumerate(levels):
            expected = (np.arange(level) - level // 2) / (level // 2)
            np.testing.assert_allclose(np.unique(scaled[:, place]), expected)
        every = np.stack(np.meshgrid(*[np.arange(level) - level // 2 for level in levels], indexing="ij"), -1)
        every = half.to_device(every.reshape(-1, len(levels)).astype(float), device)
        indices = quantizers.index_of(every, levels)
        again = half.to_numpy(quantizers.rounded_at(indices, levels, every.dtype))
        np.testing.assert_array_equal(again, half.to_numpy(every))
        assert sorted(half.to_numpy(indices).tolist()) == list(range(2 * 3 * 4 * 5 * 8))


def test_restarts_keep_a_codebook_alive(half):
    """Digits use more of a codebook whose dead vectors restart."""
    digits, used = datasets.load("digits"), {}
    for restart_below in (0.0, 0.2):
        changes = GRID | AVERAGED | {"restart_below": restart_below, "code_dim": 4, "codes": 64}
        options = {"training": {"epochs": 3, "batch_size": 128}}
        shape = digits.image_shape
        config = tiny_config("vq_vae", dtype="float32", options=options, image_shape=shape, **changes)
        records = []
        half.fit(half.create_state(config), digits, on_epoch=lambda state, record, to=records: to.append(record))
        assert set(CODE_TERMS) <= set(records[-1]["train"])
        used[restart_below] = records[-1]["train"]["codes_used"]
    assert used[0.2] > 1.5 * used[0.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 5, "code_dim": 2}, "code_dim 2 with latent_dim 5', expected a divisor of latent_dim"),
        ({"levels": (4, 1), "codes": 64, "latent_dim": 4}, r"levels \(4, 1\)', expected at least 2 of each"),
        ({"levels": (4, 4)}, "codes 5 with levels', expected 64: it is not read there"),
        (GRID | {"channels": ()}, "code_layout grid without channels', expected convolutions"),
        (GRID | {"classes": 3}, "classes 3 with code_layout grid', expected 0"),
        (GRID | {"hidden": (9,)}, r"hidden \(9,\) with code_layout grid', expected \(512,\): it is not read there"),
        ({"restart_below": 0.5}, "restart_below 0.5 with codebook_update gradient', expected 0.0"),
        (AVERAGED | {"codebook_decay": 1.0}, "codebook_decay 1.0', expected a number below 1"),
        (AVERAGED | {"restart_below": 1.0}, "restart_below 1.0', expected a share below 1"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        tiny_config("vq_vae", **{"latent_dim": 4, "code_dim": 1} | changes)


def test_only_quantizers_have_codes():
    assert [name for name, entry in MODELS.items() if entry.quantizes] == ["vq_vae"]
