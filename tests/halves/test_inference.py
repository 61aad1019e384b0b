"""NumPy in, NumPy out: shapes, ranges, batching, and equal results from both halves."""

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import COMMON, HALVES
from vae_common import randomness, reference
from vae_common.data import seen
from vae_common.errors import InputError

pytestmark = pytest.mark.quick


@pytest.fixture(params=COMMON)
def config(request):
    return small_config(request.param)


def test_encode_is_the_reference(half, config, small):
    model = half.create_model(config)
    posterior = half.encode(model, small.test.images)
    expected = reference.encode(config, half.to_arrays(model), small.test.images / 255)
    assert type(posterior.mean) is np.ndarray
    np.testing.assert_allclose(posterior.mean, expected.mean, rtol=1e-11)
    if expected.log_std is None:
        assert posterior.log_std is None
    else:
        np.testing.assert_allclose(posterior.log_std, expected.log_std, rtol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_and_ranges(half, small, dtype):
    config = small_config(dtype=dtype)
    model = half.create_model(config)
    images = small.test.images
    for result, count in (
        (half.decode(model, np.zeros((5, 3))), 5),
        (half.reconstruct(model, images), 70),
        (half.sample(model, 9, seed=1), 9),
        (half.interpolate(model, images[0], images[1], steps=6), 6),
        (half.reconstruct(model, images[:0]), 0),
    ):
        assert result.shape == (count, 28, 28, 1)
        assert result.dtype == dtype
        assert ((result > 0) & (result < 1)).all()


def test_uint8_and_floats_are_the_same_images(half, config, small):
    model = half.create_model(config)
    images = small.test.images
    expected = half.encode(model, images).mean
    for same in (images / 255, images.reshape(70, -1), images[..., 0], (images / 255).reshape(70, 784)):
        np.testing.assert_allclose(half.encode(model, same).mean, expected, rtol=1e-12)


def test_batching_does_not_show(half, config, small, monkeypatch):
    model = half.create_model(config)
    whole = half.reconstruct(model, small.test.images)
    monkeypatch.setattr(half.inference, "INFERENCE_BATCH", 16)
    np.testing.assert_allclose(half.reconstruct(model, small.test.images), whole, rtol=1e-13)


def test_interpolation_starts_and_ends_at_the_reconstructions(half, config, small):
    model = half.create_model(config)
    first, second = small.test.images[3], small.test.images[8]
    line = half.interpolate(model, first, second, steps=5)
    ends = half.reconstruct(model, np.stack([first, second]))
    np.testing.assert_allclose(line[[0, -1]], ends, rtol=1e-12)
    middle = half.encode(model, np.stack([first, second])).mean.mean(0, keepdims=True)
    np.testing.assert_allclose(line[2:3], half.decode(model, middle), rtol=1e-12)


def test_both_halves_give_the_same_arrays(config, small):
    results = []
    for half in HALVES.values():
        model = half.create_model(config)
        results.append((half.reconstruct(model, small.test.images), half.sample(model, 20, seed=4)))
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_views_and_foreign_byte_orders_are_images_too(half, small):
    model, images = half.create_model(small_config()), small.test.images
    straight = half.encode(model, images).mean
    np.testing.assert_allclose(half.encode(model, images[::-1]).mean[::-1], straight, rtol=1e-11)
    mirrored = images[:, :, ::-1]
    np.testing.assert_array_equal(half.encode(model, mirrored).mean, half.encode(model, mirrored.copy()).mean)
    swapped = (images / 255).astype(">f8")
    np.testing.assert_allclose(half.encode(model, swapped).mean, straight, rtol=1e-11)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda half, model: half.encode(model, np.zeros((2, 27, 28, 1))), "received shape (2, 27, 28, 1)"),
        (lambda half, model: half.encode(model, np.full((2, 784), np.nan)), "outside [0, 1] or NaN"),
        (lambda half, model: half.decode(model, np.zeros((2, 4))), "received shape (2, 4), expected (N, 3)"),
        (lambda half, model: half.decode(model, np.zeros(3)), "expected (N, 3)"),
        (lambda half, model: half.evaluate(model, np.zeros((0, 784)), small_config()), "received none"),
    ],
)
def test_refused(half, call, said):
    with pytest.raises(InputError) as error:
        call(half, half.create_model(small_config()))
    assert said in str(error.value)


@pytest.mark.parametrize("keep", [False, True])
def test_an_evaluation_of_one_model_after_the_other(half, small, monkeypatch, keep):
    """The same numbers as each one's own; what stays on the device is drawn once."""
    configs = [small_config(seed=seed) for seed in range(2)]
    models = [half.create_model(config) for config in configs]
    images = small.test.images
    expected = [half.evaluate(model, images, config).total for model, config in zip(models, configs)]
    drawn, draw = [], randomness.evaluation_noise
    monkeypatch.setattr(randomness, "evaluation_noise", lambda *of: drawn.append(of[0]) or draw(*of))
    evaluation = half.inference.evaluation_of(models[0], images, configs[0], keep=keep)
    for model, own in [*zip(models, expected), (models[0], expected[0])]:
        np.testing.assert_array_equal(evaluation(model).total, own)
    assert drawn == [len(images)] * (1 if keep else 3)
    monkeypatch.setattr(seen, "KEPT", images.nbytes)
    assert not seen.may_stay(images, configs[0].noise_dim)
