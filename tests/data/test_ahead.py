"""An epoch's random numbers, made before they are asked for: the same numbers, within the memory that is stated."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.configs import small_config
from vae_common import randomness
from vae_common.config import DataConfig
from vae_common.data import ahead

pytestmark = pytest.mark.quick


def experiment(**training):
    config = small_config(data=DataConfig(binarization="dynamic"))
    return replace(config, training=replace(config.training, epochs=6, batch_size=32, **training))


@pytest.fixture
def asked(monkeypatch):
    """The epochs that were drawn, by any thread."""
    found, draw = [], randomness.epoch_draws

    def noted(config, epoch, images):
        found.append((threading.current_thread().name, config.seed, epoch))
        return draw(config, epoch, images)

    monkeypatch.setattr(randomness, "epoch_draws", noted)
    return found


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("first", [0, 4])
def test_they_are_the_epochs_own(asked, beside, first):
    """Whatever thread makes them, of every seed, from any epoch on, and each of them once."""
    configs = [replace(experiment(), seed=seed) for seed in (3, 4)]
    drawn = ahead.Ahead(configs, 100, beside)
    for epoch in range(first, 6):
        for config, found in zip(configs, drawn.of(epoch)):
            expected = randomness.epoch_draws(config, epoch, 100)
            for one, other in zip(found, expected):
                np.testing.assert_array_equal(one, other.astype(one.dtype))
    made = [(seed, epoch) for thread, seed, epoch in asked if thread.startswith("draws")]
    assert sorted(made) == [(seed, epoch) for seed in (3, 4) for epoch in range(first, 6)]


def test_an_accelerator_does_not_wait_for_the_next(asked):
    """While it computes an epoch, the host draws the next ones."""
    drawn = ahead.Ahead([experiment()], 100, beside=True)
    drawn.of(0)
    until = time.monotonic() + 20
    while len(asked) < 1 + ahead.MOST and time.monotonic() < until:
        time.sleep(0.01)
    assert sorted(epoch for _, _, epoch in asked) == list(range(1 + ahead.MOST))


def test_a_cpu_trains_while_nothing_is_drawn(asked, monkeypatch):
    """It draws as many epochs at once as it has processors, before the first of them."""
    monkeypatch.setattr(ahead.machine, "threads_taken", lambda: 3)
    drawn = ahead.Ahead([experiment()], 100, beside=False)
    for epoch, made in enumerate((3, 3, 3, 6, 6, 6)):
        drawn.of(epoch)
        assert len(asked) == made


def test_memory_is_kept(asked, monkeypatch):
    """Where no epoch fits beside the one in use, each is drawn when it is asked for."""
    config = experiment()
    monkeypatch.setattr(ahead, "MEMORY", 2 * ahead.bytes_of(config, 100) + 1)
    assert ahead.Ahead([config], 100, beside=True).count == 2
    assert ahead.Ahead([config] * 2, 100, beside=True).count == 1
    none = ahead.Ahead([config] * 3, 100, beside=True)
    assert (none.count, none.of(0), asked) == (0, [None] * 3, [])
    arrays = [array for array in randomness.epoch_draws(config, 0, 100) if array is not None]
    assert sum(array.nbytes for array in arrays) <= ahead.bytes_of(config, 100)


@pytest.mark.parametrize("randomness", ["native", "counter"])
def test_what_a_device_draws_is_not_drawn_here(randomness):
    assert ahead.Ahead([experiment(randomness=randomness)], 100, beside=True).of(0) == [None]


def test_a_record_says_what_was_waited(half, small):
    records = []
    config = experiment()
    half.fit(half.create_state(config), small, on_epoch=lambda _, record: records.append(record))
    assert all(0 < record["waited_seconds"] < 60 for record in records)
