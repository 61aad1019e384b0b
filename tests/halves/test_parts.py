"""The composed parts through checkpoints, the other half, stacked seeds, compilation and the shell."""

from dataclasses import replace

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import HALVES, QUICK, saved, script
from vae_common.config import LossConfig, NetworkConfig, OptimizerConfig
from vae_common.errors import InputError
from vae_common.runs import checkpoints

CONFIGS = {
    "convolutional, quantized": small_config(
        "vq_vae", network=NetworkConfig(hidden=(9,), channels=(3, 2), latent_dim=4, codes=7, code_dim=2)
    ),
    "convolutional, conditional, learned scale": small_config(
        network=NetworkConfig(hidden=(9,), channels=(3, 2), latent_dim=2, classes=10),
        loss=LossConfig(reconstruction="learned_gaussian", kl_warmup=15),
    ),
    "two layers, IWAE, averaged, scheduled": small_config(
        "two_layer_vae",
        network=NetworkConfig(hidden=(9,), latent_dim=3, top_hidden=(5,), top_dim=2, activation="tanh"),
        loss=LossConfig(objective="iwae", samples=3),
        optimizer=OptimizerConfig(average=0.9, clip_norm=50.0, schedule="cosine", decay_steps=30, warmup_steps=4),
    ),
    "DReG, the IWAE code's Adam": small_config(
        network=NetworkConfig(hidden=(9,), latent_dim=3, activation="tanh"),
        loss=LossConfig(objective="dreg", samples=3),
        optimizer=OptimizerConfig(beta1=0.99, eps=1e-4, second_moment_start=1.0),
    ),
}


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def epochs(half, state, dataset, first, last):
    """The state after some epochs by `train_epoch`, and every step's total."""
    config, totals = state.config, []
    images = half.place_images(dataset.train.images, config)
    labels = [half.place_labels(dataset.train.labels, config)] if config.network.classes else []
    for epoch in range(first, last):
        draws = half.epoch_draws(config, epoch, len(images))
        state, terms = half.train_epoch(state, images, draws, *labels)
        totals.append(half.to_numpy(terms.total))
    return state, np.concatenate(totals)


def test_bit_for_bit_through_the_other_half_and_back(half, config, small, tmp_path):
    (other,) = (h for h in HALVES.values() if h is not half)
    state, _ = epochs(half, half.create_state(config), small, 0, 1)
    written = saved(half, state, tmp_path / "a")
    read = checkpoints.read(tmp_path / "a")
    assert read.config == config
    back = half.state_from_arrays(config, other.state_to_arrays(other.state_from_arrays(config, read.arrays)))
    final = half.state_to_arrays(back)
    assert final.keys() == written.arrays.keys()
    for name, array in written.arrays.items():
        np.testing.assert_array_equal(final[name], array)
    averages = checkpoints.part_of(written.arrays, checkpoints.AVERAGE)
    assert bool(averages) == bool(config.optimizer.average)
    assert read.weights.keys() == checkpoints.weights_of(written.arrays).keys()


def test_stopped_and_gone_on_with_in_either_half(half, config, small):
    """In the same half bit for bit; in the other to rounding, in float64."""
    whole, totals = epochs(half, half.create_state(config), small, 0, 2)
    state, _ = epochs(half, half.create_state(config), small, 0, 1)
    arrays = half.state_to_arrays(state)
    same, again = epochs(half, half.state_from_arrays(config, arrays), small, 1, 2)
    np.testing.assert_array_equal(again, totals[10:])
    for name, array in half.state_to_arrays(whole).items():
        np.testing.assert_array_equal(half.state_to_arrays(same)[name], array)
    (other,) = (h for h in HALVES.values() if h is not half)
    _, elsewhere = epochs(other, other.state_from_arrays(config, arrays), small, 1, 2)
    np.testing.assert_allclose(elsewhere, totals[10:], rtol=1e-11)


def test_stacked_seeds_are_each_its_own_run(half, config, small):
    members = [half.create_state(replace(config, seed=seed)) for seed in (0, 5)]
    stacked = half.stack_states(members)
    images = half.place_images(small.train.images, config)
    labels = [half.place_labels(small.train.labels, config)] if config.network.classes else []
    stacked, _ = half.train_epoch(stacked, images, half.state_draws(stacked, 0, len(images)), *labels)
    for member, own in zip(half.unstack_states(stacked), members):
        alone, _ = epochs(half, half.create_state(own.config), small, 0, 1)
        expected = half.state_to_arrays(alone)
        found = half.state_to_arrays(member)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-9 * max(1.0, np.abs(array).max()))


def test_compiled(config, small):
    half = HALVES["torch"]
    _, eager = epochs(half, half.create_state(config), small, 0, 1)
    compiled = replace(config, training=replace(config.training, execution="compile"))
    _, totals = epochs(half, half.create_state(compiled), small, 0, 1)
    np.testing.assert_allclose(totals, eager, rtol=1e-11)


def test_evaluations_use_the_averaged_weights(half, small):
    config = CONFIGS["two layers, IWAE, averaged, scheduled"]
    state = half.fit(half.create_state(config), small)
    arrays = half.state_to_arrays(state)
    averages = checkpoints.part_of(arrays, checkpoints.AVERAGE)
    for name, array in half.to_arrays(state.evaluated).items():
        np.testing.assert_array_equal(array, averages[name])
    assert np.abs(averages["encoder.mean.weight"] - arrays["encoder.mean.weight"]).max() > 0


def test_labels_have_to_fit(half, small):
    config = CONFIGS["convolutional, conditional, learned scale"]
    model = half.create_model(config)
    with pytest.raises(InputError, match="labels: received none, expected some: the model has 10 classes"):
        half.encode(model, small.test.images)
    with pytest.raises(InputError, match=r"labels: received labels from 10 to 19, expected 70 integers from 0 to 9"):
        half.encode(model, small.test.images, small.test.labels + 10)
    with pytest.raises(InputError, match="labels: received some, expected none"):
        half.encode(half.create_model(small_config()), small.test.images, small.test.labels)
    fewer = replace(config, network=replace(config.network, classes=9))
    with pytest.raises(InputError, match="classes: received 9, but the train split of digits has labels from 0 to 9"):
        half.fit(half.create_state(fewer), small)
    unlabelled = replace(small, train=replace(small.train, labels=np.full(len(small.train), -1)))
    with pytest.raises(InputError, match="classes: received 10, but the train split of digits has no labels"):
        half.fit(half.create_state(config), unlabelled)


def test_output_bias_starts_at_the_data(half, small):
    config = small_config(network=NetworkConfig(hidden=(9,), latent_dim=2, output_bias="data_mean"))
    means = small.train.images.mean(0).ravel() / 255
    bias = half.to_arrays(half.create_state(config, small.train.images).model)["decoder.logits.bias"]
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), means.clip(0.001, 0.999), rtol=1e-12)
    with pytest.raises(InputError, match="received data_mean and no images"):
        half.create_state(config)


def test_every_model_from_the_shell(tmp_path):
    """Conditional and convolutional, trained, compared and drawn in both halves."""
    flags = ("--models", "vq_vae", "two_layer_vae", "--classes", "10", "--channels", "4", "--codes", "8")
    found = script("compare", *flags, "--latent-dim", "4", *QUICK, "--output", "c", cwd=tmp_path)
    assert set(found["models"]) == {"vq_vae", "two_layer_vae"}
    for model in found["models"]:
        assert abs(found["models"][model]["relative_difference"]["total_nats"]) < 1e-3
        for figure in ("prior_samples", "decoded_grid", "interpolation", "reconstructions"):
            assert (tmp_path / "c/figures" / model / f"{figure}.png").stat().st_size > 3000
    deep = ("--models", "kl_autoencoder", "--block-channels", "8", "8", "8", "8")
    said = script("compare", *deep, "--epochs", "1", cwd=tmp_path, status=2)
    assert "block_channels (8, 8, 8, 8) on images of 28x28" in said
