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


def rows_together(rows, step, *_):
    """As many in one product as can be."""
    return [[row for row in rows if row % step == first] for first in {row % step for row in rows}]


def apart(at, features, weights, dtype):
    """How far from autodiff's gradients those of features and kernel are; the results are equal."""
    half, rng = HALVES["jax"], np.random.default_rng(0)
    features, weights = (jax.numpy.asarray(rng.normal(size=shape), dtype) for shape in (features, weights))

    def plain(features, weights):
        layout = half.convolutions.LAYOUT
        return jax.lax.conv_general_dilated(features, weights, *at, dimension_numbers=layout)

    result, by_autodiff = jax.vjp(plain, features, weights)
    own, by_hand = jax.vjp(lambda *operands: half.convolutions.convolved(*operands, at), features, weights)
    np.testing.assert_array_equal(own, result)
    gradient = jax.numpy.asarray(rng.normal(size=result.shape), dtype)
    found = by_hand(gradient), by_autodiff(gradient)
    assert [array.dtype for array in found[0]] == [array.dtype for array in found[1]]
    return [difference(*(np.asarray(array, np.float64) for array in pair)) for pair in zip(*found)]


LIMITS = {"float64": 0.0, "float32": 2e-6, "bfloat16": 2e-2}


@pytest.mark.parametrize(
    ("dtype", "devices"), [("float64", 1), ("float64", 2), ("float32", 1), ("float32", 2), ("bfloat16", 1)]
)
def test_gradients_are_autodiffs(dtype, devices, monkeypatch):
    """Of every stride, padding, spread and dilation: bit for bit in float64, but for sums in another order."""
    half = HALVES["jax"]
    monkeypatch.setattr(half.convolutions, "devices", lambda: devices)
    tried = GEOMETRIES if dtype == "float64" else OF_MODELS
    with half.precision("float64" if dtype == "float64" else "float32"):
        for kernel, *pairs in tried:
            stride, padding, spread, dilation = ((value, value) for value in pairs)
            at = half.convolutions.Geometry(stride, padding, spread, dilation)
            shapes = (3, *SIDES[kernel % 2], 2), (kernel, kernel, 2, 5)
            of_features, of_kernel = apart(at, *shapes, dtype)
            another_order = 2e-15 if devices == 1 or spread != (1, 1) else 0.0
            assert of_features <= LIMITS[dtype], at
            assert of_kernel <= max(LIMITS[dtype], another_order), at


@pytest.mark.parametrize(("dtype", "together"), [*((dtype, False) for dtype in LIMITS), ("float64", True)])
@pytest.mark.parametrize(
    "at",
    [
        ((2, 1), ((1, 0), (2, -1)), (1, 1), (1, 2)),
        ((1, 1), ((-1, 1), (3, 2)), (2, 3), (2, 1)),
        ((2, 3), ((2, 1), (0, 1)), (2, 1), (1, 1)),
    ],
)
def test_height_and_width_differ(at, dtype, together, monkeypatch):
    """Also with padding that cuts, in groups of two images and one that is left; rows together or each alone."""
    half = HALVES["jax"]
    if together:
        monkeypatch.setattr(half.convolutions, "_rows_together", rows_together)
    at = half.convolutions.Geometry(*at)
    with half.precision("float64" if dtype == "float64" else "float32"):
        features, kernel = (5, 8, 9, 2), (3, 4, 2, 5)
        shape = jax.eval_shape(
            lambda *operands: half.convolutions.convolved(*operands, at),
            *(jax.ShapeDtypeStruct(of, dtype) for of in (features, kernel)),
        ).shape
        monkeypatch.setattr(half.convolutions, "PLACES", 2 * min(8 * 9, shape[1] * shape[2]))
        assert max(apart(at, features, kernel, dtype)) <= max(LIMITS[dtype], 2e-15)


def test_rows_together_where_that_copies_less():
    """And where no more than an eighth of the product falls beside the places."""
    group, three = HALVES["jax"].convolutions._rows_together, [0, 1, 2]
    for rows, step, under, places, expected in (
        (three, 1, 240, (1, 16, 16, 80), [three]),
        (three, 1, 240, (1, 15, 15, 80), [[0], [1], [2]]),
        (three, 1, 24, (1, 16, 16, 80), [[0], [1], [2]]),
        ([5, 4, 3, 2], 2, 240, (1, 16, 16, 8), [[5, 3], [4, 2]]),
        ([0], 1, 240, (1, 16, 16, 8), [[0]]),
    ):
        assert group(rows, step, under, np.zeros(places)) == expected


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
