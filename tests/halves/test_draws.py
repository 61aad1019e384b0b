"""Every random number is what it says: its distribution, its independence, and no number twice.

The shared draws and each half's native ones alike; what is wrong in them would be wrong in every claim.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.configs import small_config
from tests.conftest import HALVES
from vae_common import randomness
from vae_common.config import DataConfig, NetworkConfig, TrainingConfig
from vae_common.data.seen import evaluation_images, training_images
from vae_common.data.splits import Dataset, Split

pytestmark = pytest.mark.quick

IMAGES, BATCH, LATENTS = 1010, 50, 8
PIXELS = (5, 4, 1)
SEEDS, EPOCHS = (0, 1, 2**32, 2**32 + 1), (0, 1)
LEAST_P = 1e-4  # the seeds are fixed: what passes once passes always


def drawn(half, kind, seed, epoch, dtype="float64"):
    """The draws of an epoch as NumPy arrays."""
    config = replace(
        small_config(seed=seed, data=DataConfig(binarization="dynamic")),
        image_shape=PIXELS,
        network=NetworkConfig(hidden=(4,), latent_dim=LATENTS),
        training=TrainingConfig(precision=dtype, batch_size=BATCH, randomness=kind),
    )
    return [half.to_numpy(draw) for draw in half.epoch_draws(config, epoch, IMAGES)]


@pytest.fixture(params=["shared", "native"])
def draws(request, half):
    """Order, noise and thresholds of every seed and epoch."""
    return [drawn(half, request.param, seed, epoch) for seed in SEEDS for epoch in EPOCHS]


def test_no_two_draws_are_alike(draws):
    """Over seeds and epochs, over steps, over images: nothing is drawn once and used twice."""
    for kind in zip(*draws):
        assert len({array.tobytes() for array in kind}) == len(SEEDS) * len(EPOCHS)
    for _, noise, thresholds in draws:
        assert len(np.unique(noise)) == noise.size
        rows = thresholds.reshape(-1, np.prod(PIXELS))
        assert len(np.unique(rows, axis=0)) == len(rows)


def test_order_is_a_shuffle(draws):
    """Each image at most once an epoch, none never, and no place prefers an image."""
    places = []
    for order, _, _ in draws:
        assert order.shape == (IMAGES // BATCH, BATCH)
        assert order.dtype == np.int32
        assert len(np.unique(order)) == order.size
        assert (order.min() >= 0) & (order.max() < IMAGES)
        assert abs(stats.spearmanr(order.ravel(), np.arange(order.size)).statistic) < 4 / order.size**0.5
        places.append(order.ravel())
    assert len(np.unique(places)) == IMAGES


def test_noise_is_standard_normal(draws):
    noise = np.stack([noise for _, noise, _ in draws])
    assert noise.shape == (8, IMAGES // BATCH, BATCH, LATENTS)
    assert stats.kstest(noise.ravel(), "norm").pvalue > LEAST_P
    for axis in range(4):
        first, second = neighbours(noise, axis)
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / first.size**0.5


def neighbours(array, axis):
    """Every element and the next one along an axis."""
    moved = np.moveaxis(array, axis, 0)
    return moved[:-1].ravel(), moved[1:].ravel()


def test_thresholds_are_uniform(draws):
    thresholds = np.stack([thresholds for _, _, thresholds in draws])
    assert thresholds.dtype == np.uint8
    counts = np.bincount(thresholds.ravel(), minlength=256)
    assert counts[255] == 0
    assert stats.chisquare(counts[:255]).pvalue > LEAST_P
    for axis in range(3):
        first, second = neighbours(thresholds.astype(float), axis)
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / first.size**0.5


def test_noise_and_thresholds_have_nothing_in_common(draws):
    for _, noise, thresholds in draws:
        uniform = thresholds.reshape(-1)[: noise.size].astype(float)
        assert abs(stats.spearmanr(uniform, noise.ravel()[: uniform.size]).statistic) < 4 / uniform.size**0.5


@pytest.mark.parametrize("kind", ["shared", "native"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_has_the_precision_of_its_dtype(half, kind, dtype):
    _, noise, _ = drawn(half, kind, 0, 0, dtype)
    assert noise.dtype == dtype
    assert (noise.astype(np.float32) == noise).all() == (dtype == "float32")
    assert (noise.astype(np.float16) == noise).mean() < 0.1


@pytest.mark.parametrize("fault", [lambda x: 1.05 * x, np.sort, lambda x: x[[0] * len(x)], np.abs])
def test_what_the_checks_see(fault):
    """The negative control: draws that are a little wrong fail one of the tests above."""
    found = [drawn(HALVES["torch"], "shared", seed, epoch) for seed in SEEDS for epoch in EPOCHS]
    wrong = [(order, fault(noise), thresholds) for order, noise, thresholds in found]
    with pytest.raises(AssertionError):
        for test in (test_no_two_draws_are_alike, test_noise_is_standard_normal):
            test(wrong)


def test_evaluation_noise_prior_and_static_thresholds():
    noise = randomness.evaluation_noise(5000, 4)
    assert stats.kstest(noise.ravel(), "norm").pvalue > LEAST_P
    assert len(np.unique(noise)) == noise.size
    np.testing.assert_array_equal(randomness.evaluation_noise(300, 4), noise[:300])
    prior = [randomness.prior_samples(seed, 5000, 4) for seed in (0, 1)]
    assert stats.kstest(np.ravel(prior), "norm").pvalue > LEAST_P
    assert len(np.unique(prior)) == 40_000
    static = [randomness.static_thresholds(split, (500, 6, 5, 1)) for split in ("train", "test")]
    assert stats.chisquare(np.bincount(np.ravel(static), minlength=256)[:255]).pvalue > LEAST_P
    assert abs(np.corrcoef(np.ravel(static[0]), np.ravel(static[1]))[0, 1]) < 4 / static[0].size ** 0.5


def test_every_split_has_its_own_static_draw():
    grey = np.full((20, 9, 9, 1), 128, np.uint8)
    split = Split(grey, np.zeros(20, np.int64))
    dataset = Dataset("grey", split, split, ("0",), "made up", validation=split)
    seen = [training_images(dataset, "static")]
    seen += [evaluation_images(dataset, "static", name)[1] for name in ("validation", "test")]
    assert len({images.tobytes() for images in seen}) == 3
    for images, name in zip(seen, ("train", "validation", "test")):
        np.testing.assert_array_equal(images, 255 * (grey > randomness.static_thresholds(name, grey.shape)))
