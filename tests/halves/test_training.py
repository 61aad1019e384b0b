"""Training's contract: every image evaluated, terms apart, divergence stopped, validation held out."""

from dataclasses import replace

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import COMMON
from vae_common import randomness, reference
from vae_common.config import Config, DataConfig, LossConfig, NetworkConfig, TrainingConfig
from vae_common.errors import InputError
from vae_common.runs.epoch_records import NonFiniteLoss


def fitted(half, config, dataset):
    records = []
    state = half.fit(half.create_state(config), dataset, on_epoch=lambda state, record: records.append(record))
    return state, records


def test_fit_records_every_epoch(half, small):
    state, records = fitted(half, small_config(), small)
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["step"] for record in records] == [10, 20]
    assert state.step == 20
    for record in records:
        for split in ("train", "test"):
            terms = record[split]
            assert terms["total_nats"] == pytest.approx(terms["reconstruction_nats"] + terms["kl_nats"])
            assert terms["kl_nats"] > 0
        assert record["images_per_second"] > 0
    assert records[1]["train"]["total_nats"] < records[0]["train"]["total_nats"]


def test_validation_is_reported_in_place_of_test(half, small):
    records = fitted(half, small_config(data=DataConfig(validation_size=60)), small.hold_out(60))[1]
    assert "validation" in records[0]
    assert "test" not in records[0]
    assert records[0]["step"] == 7


def test_the_config_decides(half, small):
    """Beta, reduction, learning rate and binarization reach the numbers."""
    base = fitted(half, small_config(), small)[1][-1]["test"]
    for change in (
        {"loss": LossConfig(beta=5.0)},
        {"loss": LossConfig(reduction="sum")},
        {"loss": LossConfig(reconstruction="squared_error")},
        {"data": DataConfig(binarization="dynamic")},
        {"training": TrainingConfig(precision="float64", batch_size=20, epochs=2, learning_rate=2e-3)},
        {"training": TrainingConfig(precision="float64", batch_size=25, epochs=2)},
    ):
        changed = fitted(half, small_config(**change), small)[1][-1]["test"]
        assert abs(changed["total_nats"] - base["total_nats"]) > 1e-6, change


def test_the_reported_loss_is_per_image_whatever_the_reduction(half, small):
    mean, total = (
        fitted(half, small_config(loss=LossConfig(reduction=r)), small)[1][0]["train"]["total_nats"]
        for r in ("mean", "sum")
    )
    assert total == pytest.approx(mean, rel=0.02)  # Adam all but ignores the loss's scale


@pytest.mark.parametrize("model", COMMON)
@pytest.mark.parametrize("images", [1, 70])
def test_evaluate_uses_every_image(half, small, model, images, monkeypatch):
    """Also a partial last batch, against the reference."""
    monkeypatch.setattr(half.inference, "INFERENCE_BATCH", 32)
    config = small_config(model)
    model = half.create_model(config)
    terms = half.evaluate(model, small.test.images[:images], config)
    noise = randomness.evaluation_noise(images, config.noise_dim)
    unit = small.test.images[:images] / 255
    outputs = reference.forward(config, half.to_arrays(model), unit, noise)
    found, expected = terms.named(), reference.loss_terms(config.loss, outputs, unit).named()
    assert found.keys() == expected.keys()
    for name, term in expected.items():
        assert found[name].shape == (images,)
        np.testing.assert_allclose(found[name], term, rtol=1e-11)


def test_float32_stays_float32_and_follows_float64(half, small):
    records = {}
    for dtype in ("float32", "float64"):
        state, records[dtype] = fitted(half, small_config(dtype=dtype), small)
        assert {a.dtype.name for k, a in half.state_to_arrays(state).items() if k != "adam.step"} == {dtype}
    a, b = (records[dtype][-1]["test"]["total_nats"] for dtype in records)
    assert a == pytest.approx(b, rel=1e-3)
    assert a != b


def test_a_loss_that_is_not_finite_stops_the_run(half, small):
    """The error names epoch and step; the state is the one before that epoch."""
    config = small_config(training=TrainingConfig(precision="float32", batch_size=20, epochs=3, learning_rate=1e18))
    state = half.create_state(config)
    before = half.state_to_arrays(state)
    with pytest.raises(NonFiniteLoss, match=r"in epoch 1, step \d+; try a smaller learning_rate") as error:
        half.fit(state, small)
    assert error.value.epoch == 1
    assert 2 <= error.value.step <= 10
    after = half.state_to_arrays(error.value.state)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_the_last_good_state_has_its_moments(half, small, monkeypatch):
    """Noise that turns NaN in the third epoch: the state after the second one comes back, whole."""
    config = small_config(training=TrainingConfig(precision="float64", batch_size=20, epochs=4))
    good = half.state_to_arrays(fitted(half, replace(config, training=replace(config.training, epochs=2)), small)[0])
    original = half.fitting.state_draws

    def state_draws(state, epoch, images, drawn):
        draws = original(state, epoch, images, drawn)
        if epoch < 2:
            return draws
        with half.precision("float64"):
            broken = half.to_numpy(draws.noise)
            broken[3, 5, 0] = np.nan
            return draws._replace(noise=half.to_device(broken, half.select_device("cpu")))

    monkeypatch.setattr(half.fitting, "state_draws", state_draws)
    with pytest.raises(NonFiniteLoss, match="in epoch 3, step 4") as error:
        half.fit(half.create_state(config), small)
    left = half.state_to_arrays(error.value.state)
    assert left["adam.step"] == 20
    for name, array in good.items():
        np.testing.assert_array_equal(left[name], array)


def test_a_config_for_other_images_is_refused(half, small):
    config = replace(small_config(), image_shape=(14, 14, 1))
    with pytest.raises(InputError, match=r"received \(14, 14, 1\), but digits has \(28, 28, 1\)"):
        half.fit(half.create_state(config), small)


def test_native_randomness_learns_alike(half, small):
    """Its own generator: other numbers, the same experiment statistically, and reproducible."""
    config = small_config(training=TrainingConfig(batch_size=20, epochs=3, randomness="native"))
    config = replace(config, data=DataConfig(binarization="dynamic"))
    first, again = (fitted(half, config, small)[1][-1]["test"]["total_nats"] for _ in range(2))
    shared = replace(config, training=replace(config.training, randomness="shared"))
    other = fitted(half, shared, small)[1][-1]["test"]["total_nats"]
    assert first == again
    assert first != other
    assert first == pytest.approx(other, rel=0.05)
    draws = half.epoch_draws(config, 0, len(small.train))
    thresholds, noise = np.asarray(draws.thresholds), np.asarray(draws.noise)
    assert thresholds.dtype == np.uint8
    assert thresholds.max() == 254
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert len(np.unique(np.asarray(draws.order))) == 200


def test_fit_goes_on_from_where_the_state_stands(half, small):
    """Two epochs are one epoch and one more, bit for bit."""
    whole = half.state_to_arrays(fitted(half, small_config(), small)[0])
    one = small_config(training=TrainingConfig(precision="float64", batch_size=20, epochs=1))
    arrays = half.state_to_arrays(fitted(half, one, small)[0])
    resumed = half.fit(half.state_from_arrays(small_config(), arrays), small)
    for name, array in half.state_to_arrays(resumed).items():
        np.testing.assert_array_equal(array, whole[name])


def test_colour_images_and_odd_shapes(half):
    from vae_common.data.splits import Dataset, Split

    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (40, 5, 7, 3), np.uint8), np.zeros(40, np.int64))
    dataset = Dataset("colour", split, split, ("0",), "made up")
    config = replace(small_config(), image_shape=(5, 7, 3), network=NetworkConfig(hidden=(9, 8), latent_dim=1))
    state, _ = fitted(half, config, dataset)
    assert half.reconstruct(state.model, split.images).shape == (40, 5, 7, 3)


def test_devices_that_are_not_there(half):
    missing = "tpu" if half.__name__ == "torch_vae" else "cuda"
    with pytest.raises(InputError, match=f"device: received {missing}, but this"):
        half.select_device(missing)
    assert half.environment("cpu")["device"].startswith("cpu")
    assert half.peak_memory(half.select_device("cpu")) is None


def test_batches_larger_than_the_set(half, small):
    with pytest.raises(InputError, match="at most the 200 training images"):
        half.fit(half.create_state(Config(training=TrainingConfig(batch_size=201))), small)
