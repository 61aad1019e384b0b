"""Convolutions: JAX's own backward pass against autodiff's, and images that strides do not divide."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from allpairspy import AllPairs

from tests.configs import small_config
from tests.conftest import HALVES
from vae_common.config import NetworkConfig
from vae_common.conformance.engine.checks import difference

SIDES = ((5, 6), (8, 7))


def _fits(row):
    """Without a place to lay the kernel there is no convolution."""
    if len(row) < 5:  # while it is being put together
        return True
    kernel, _, padding, spread, dilation = row
    return (5 - 1) * spread + 1 + sum(padding) >= (kernel - 1) * dilation + 1


KERNELS, STRIDES, PADDINGS, FACTORS = (1, 3, 4), (1, 2, 3), ((0, 0), (1, 1), (0, 1), (2, 1)), (1, 2)
OF_MODELS = [(4, 2, (1, 1), 1, 1), (4, 1, (2, 2), 2, 1), (3, 2, (0, 1), 1, 1), (3, 1, (1, 1), 1, 1)]
GEOMETRIES = [
    *OF_MODELS,
    *map(tuple, AllPairs([KERNELS, STRIDES, PADDINGS, FACTORS, FACTORS], filter_func=_fits)),
]
"""Kernel, stride, padding, spread and dilation: those of the models, and every two of these together."""


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_gradients_are_autodiffs(dtype):
    """Of every stride, padding, spread and dilation: of features bit for bit in float64, all else to rounding."""
    half, rng = HALVES["jax"], np.random.default_rng(0)
    convolved, geometry = half.convolutions.convolved, half.convolutions.Geometry
    limit = {"float64": 0.0, "float32": 2e-6, "bfloat16": 2e-2}[dtype]
    tried = GEOMETRIES if dtype == "float64" else OF_MODELS
    with half.precision("float64" if dtype == "float64" else "float32"):
        for kernel, stride, padding, spread, dilation in tried:
            at = geometry((stride, stride), (padding, padding), (spread, spread), (dilation, dilation))
            features = jax.numpy.asarray(rng.normal(size=(3, *SIDES[kernel % 2], 2)), dtype)
            weights = jax.numpy.asarray(rng.normal(size=(kernel, kernel, 2, 5)), dtype)

            def plain(features, weights, at=at):
                layout = half.convolutions.LAYOUT
                return jax.lax.conv_general_dilated(features, weights, *at, dimension_numbers=layout)

            result, by_autodiff = jax.vjp(plain, features, weights)
            own, by_hand = jax.vjp(lambda *operands, at=at: convolved(*operands, at), features, weights)
            np.testing.assert_array_equal(own, result)
            gradient = jax.numpy.asarray(rng.normal(size=result.shape), dtype)
            for found, expected in zip(by_hand(gradient), by_autodiff(gradient)):
                assert found.dtype == expected.dtype
                apart = difference(np.asarray(found, np.float64), np.asarray(expected, np.float64))
                another_order = 2e-15 if found.shape == weights.shape else 0.0
                assert apart <= max(limit, another_order), (at, apart)


@pytest.mark.parametrize("batch", [1, 5, 6])
@pytest.mark.parametrize("spread", [1, 2])
def test_kernels_gradients_are_made_in_groups(batch, spread, monkeypatch):
    """Also of a batch that they do not divide: autodiff's gradients to rounding."""
    half, rng = HALVES["jax"], np.random.default_rng(0)
    monkeypatch.setattr(half.convolutions, "PLACES", 2 * 40 * 41)
    at = half.convolutions.Geometry(padding=((1, 1), (1, 1)), spread=(spread, spread))
    with half.precision("float64"):
        features, kernel = (jax.numpy.asarray(rng.normal(size=shape)) for shape in ((batch, 40, 41, 2), (3, 3, 2, 5)))

        def plain(kernel):
            return jax.lax.conv_general_dilated(features, kernel, *at, dimension_numbers=half.convolutions.LAYOUT)

        result, by_autodiff = jax.vjp(plain, kernel)
        _, own = jax.vjp(lambda kernel: half.convolutions.convolved(features, kernel, at), kernel)
        gradient = jax.numpy.asarray(rng.normal(size=result.shape))
        assert difference(np.asarray(own(gradient)[0]), np.asarray(by_autodiff(gradient)[0])) < 1e-14
        of_it = str(jax.make_jaxpr(own)(gradient))
    assert ("scan" in of_it) == (batch > 2)


@pytest.mark.parametrize("shape", [(7, 5, 1), (1, 1, 3), (9, 8, 3)])
def test_images_that_the_stride_does_not_divide(half, shape):
    """Enlarged below and to the right with zeros: as if they had come so, and as large as they were afterwards."""
    config = replace(small_config(), image_shape=shape)
    config = replace(config, network=NetworkConfig(hidden=(6,), latent_dim=2, channels=(3, 4)))
    height, width, deep = shape
    assert config.grid_shape == (-(-height // 4), -(-width // 4), 4)
    larger = replace(config, image_shape=(-(-height // 4) * 4, -(-width // 4) * 4, deep))
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    around = np.zeros((3, *larger.image_shape), np.uint8)
    around[:, :height, :width] = images
    assert half.model_shapes(config) == half.model_shapes(larger)
    found, expected = (half.encode(half.create_model(of), seen) for of, seen in ((config, images), (larger, around)))
    np.testing.assert_array_equal(found.mean, expected.mean)
    decoded, whole = (half.decode(half.create_model(of), found.mean) for of in (config, larger))
    assert decoded.shape == images.shape
    np.testing.assert_array_equal(decoded, whole[:, :height, :width])


def test_both_halves_train_alike_on_odd_sizes():
    images = np.random.default_rng(0).integers(0, 256, (40, 7, 5, 1), np.uint8)
    config = replace(small_config(), image_shape=(7, 5, 1))
    config = replace(config, network=NetworkConfig(hidden=(6,), latent_dim=2, channels=(3, 4)))
    arrays = []
    for half in HALVES.values():
        state, placed = half.create_state(config), half.place_images(images, config)
        for epoch in range(2):
            state, _ = half.train_epoch(state, placed, half.epoch_draws(config, epoch, len(images)))
        arrays.append(half.state_to_arrays(state))
    for name, array in arrays[0].items():
        assert difference(array, arrays[1][name]) < 1e-9, name
