"""Random numbers by their place alone: the same bits everywhere, in any part, and random as they should be."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import stats

from tests.configs import small_config
from tests.conformance.suite import assert_conformant, images_for, tiny_config
from tests.conftest import HALVES
from vae_common import counters, randomness
from vae_common.config import NetworkConfig
from vae_common.conformance.engine.checks import difference
from vae_common.conformance.lockstep import tier_checks

KEY = randomness.key_words(3, "noise", 7)
HIGH, LOW = np.arange(700, dtype=np.uint32)[:, None], np.arange(60, dtype=np.uint32)[None]
WORDS = counters.bits(KEY, HIGH, LOW)
MANY = counters.bits(KEY, np.arange(200_000, dtype=np.uint32)[:, None], np.arange(4, dtype=np.uint32)[None])
COUNTER = {"training": {"randomness": "counter"}}


def on(half, array):
    """An array as the half's counters take it: PyTorch's words are int64."""
    array = np.asarray(array)
    array = array.astype(np.int64) if half.__name__ == "torch_vae" else array.astype(np.uint32)
    return half.to_device(array, half.select_device("cpu"))


def test_they_are_jaxs_own_bits():
    """`jax.random.bits` of the same key, at the flat index."""
    key = jax.random.wrap_key_data(jax.numpy.asarray(KEY), impl="threefry2x32")
    np.testing.assert_array_equal(np.asarray(jax.random.bits(key, (60,), "uint32")), WORDS[0])


def test_known_words():
    """The zero key and counter of Threefry-2x32's published vectors (Random123): 6b200159 and 99ba4efe."""
    zeros = np.zeros(2, np.uint32)
    assert counters.bits(zeros, np.uint32(0), np.uint32(0)) == 0x6B200159 ^ 0x99BA4EFE


def test_every_device_has_the_same_integers(half):
    own = half.counters
    with half.precision("float64"):
        np.testing.assert_array_equal(half.to_numpy(own.bits(on(half, KEY), on(half, HIGH), on(half, LOW))), WORDS)
        np.testing.assert_array_equal(half.to_numpy(own.thresholds(on(half, WORDS))), counters.thresholds(WORDS))
        for count in (1, 3, 1025, 60_000):
            found = half.to_numpy(own.permuted(on(half, KEY), on(half, np.arange(count)), count))
            np.testing.assert_array_equal(found, counters.permuted(KEY, np.arange(count), count))


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_normals_are_the_same_to_last_places(half, precision):
    with half.precision(precision):
        dtype = {
            "jax_vae": precision,
            "torch_vae": half.to_device(np.zeros(1, precision), half.select_device("cpu")).dtype,
        }
        found = half.to_numpy(half.counters.normals(on(half, MANY), dtype[half.__name__]))
    assert found.dtype == precision
    assert difference(found, counters.normals(MANY)) < 8 * np.finfo(precision).eps


def test_a_part_is_a_part_of_the_whole():
    """Of any images, in any order, any of their numbers: nothing depends on what else is drawn."""
    rows, columns = np.array([5, 699, 0]), np.array([59, 7])
    np.testing.assert_array_equal(counters.bits(KEY, HIGH[rows], LOW[:, columns]), WORDS[np.ix_(rows, columns)])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 1000, 60_000])
def test_an_order_is_a_permutation(count):
    assert sorted(counters.permuted(KEY, np.arange(count), count)) == list(range(count))


@pytest.mark.parametrize(
    ("count", "block"), [(1, 4), (7, 8), (64, 8), (1000, 3), (5000, 16), (40_000, 64), (20, 32), (1999, 1000)]
)
def test_an_order_in_blocks_is_a_permutation_of_what_lies_together(count, block):
    """Of 64 blocks all images come one after the other, mixed; and any places are found without the others."""
    order = counters.in_blocks(KEY, np.arange(count), count, block)
    assert sorted(order) == list(range(count))
    places = np.arange(count)[::7]
    np.testing.assert_array_equal(counters.in_blocks(KEY, places, count, block), order[::7])
    if block > 8 or count == 1000:
        assert (np.diff(order) == 1).mean() < 0.2
    if count > 10_000:
        window = np.sort(order[: 64 * block])
        assert (np.diff(window) == 1).mean() > 0.95
        assert abs(stats.spearmanr(np.arange(64 * block), order[: 64 * block]).statistic) < 0.1
        assert abs(stats.spearmanr(np.arange(count), order).statistic) < 0.1


def test_blocks_begin_elsewhere_in_each_epoch():
    """So none of the images is what no block takes, and comes last, for ever."""
    keys = [randomness.key_words(0, "order", epoch) for epoch in range(20)]
    last = {int(counters.in_blocks(key, np.array([1000]), 1001, 8)[0]) for key in keys}
    assert len(last) > 15


def test_orders_are_uniform_and_differ_by_epoch():
    """Every image comes at every place equally often over epochs, and neighbours do not stay together."""
    count, epochs = 20, 1000
    orders = np.stack(
        [counters.permuted(randomness.key_words(0, "order", e), np.arange(count), count) for e in range(epochs)]
    )
    places = np.stack([np.bincount(orders[:, place], minlength=count) for place in range(count)])
    assert stats.chisquare(places.ravel()).pvalue > 1e-4
    together = (np.abs(np.diff(orders, axis=1)) == 1).mean()
    assert together == pytest.approx(2 / count, rel=0.05)
    large = counters.permuted(KEY, np.arange(60_000), 60_000)
    assert abs(stats.spearmanr(np.arange(60_000), large).statistic) < 0.02


def test_normals_have_the_moments_and_the_tails_of_a_normal():
    drawn = counters.normals(MANY).ravel()
    assert stats.kstest(drawn[:100_000], "norm").pvalue > 1e-4
    for power, expected in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert (drawn**power).mean() == pytest.approx(
            expected, abs=6 * np.sqrt((drawn ** (2 * power)).mean() / drawn.size)
        )
    for sigma in (3, 4):
        assert (np.abs(drawn) > sigma).sum() == pytest.approx(2 * stats.norm.sf(sigma) * drawn.size, rel=0.25)
    extreme = counters.normals(np.array([0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF], np.uint32))
    np.testing.assert_allclose(extreme, [-6.338, 0, 6.338, 0], atol=1e-3)


def test_numbers_of_images_epochs_and_streams_are_independent():
    """No correlation between an image's numbers, neighbours, epochs, seeds and streams."""
    places, own = np.arange(20_000, dtype=np.uint32)[:, None], np.arange(2, dtype=np.uint32)[None]
    keys = [("noise", 0, 0), ("noise", 0, 1), ("noise", 1, 0), ("thresholds", 0, 0)]
    drawn = [counters.normals(counters.bits(randomness.key_words(s, name, e), places, own)) for name, s, e in keys]
    columns = np.stack([*(of[:, 0] for of in drawn), drawn[0][:, 1], np.roll(drawn[0][:, 0], 1)])
    apart = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(apart).max() < 5 / np.sqrt(len(places))


def test_thresholds_are_uniform():
    found = np.bincount(counters.thresholds(MANY).ravel(), minlength=256)
    assert found[255] == 0
    assert stats.chisquare(found[:255]).pvalue > 1e-4


def test_all_tiers():
    config = tiny_config(options=COUNTER | {"loss": {"samples": 2}})
    assert_conformant(tier_checks(HALVES, config, images_for(config), steps=6), "float64")


def test_nothing_draws_an_epoch(half, small):
    """What an epoch is given is an order and a key for each step."""
    config = small_config()
    training = replace(config.training, randomness="counter")
    config = replace(config, network=NetworkConfig(hidden=(8,), latent_dim=50), training=training)
    draws = half.epoch_draws(config, 3, len(small.train))
    steps, batch = draws.order.shape
    assert draws.noise.shape == (steps, 3)
    first, second = (half.step_draws(config, draws, step) for step in (0, 1))
    assert first.noise.shape == (batch, 50)
    whole = randomness.epoch_draws(config, 3, len(small.train))
    for step, draw in enumerate((first, second)):
        np.testing.assert_array_equal(half.to_numpy(draw.order), whole.order[step])
        assert difference(half.to_numpy(draw.noise), whole.noise[step]) < 1e-14


def test_stacked_seeds_are_each_its_own_run(half, small):
    config = small_config()
    config = replace(config, training=replace(config.training, randomness="counter", epochs=2))
    configs = [replace(config, seed=seed) for seed in (0, 1)]
    together = half.unstack_states(half.fit(half.stack_states([half.create_state(c) for c in configs]), small))
    for own, state in zip(configs, together):
        alone = half.state_to_arrays(half.fit(half.create_state(own), small))
        for name, array in half.state_to_arrays(state).items():
            assert difference(array, alone[name]) < 1e-11, name
