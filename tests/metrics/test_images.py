"""PSNR and SSIM of reconstructions."""

import numpy as np
import pytest

from vae_common.metrics.images import EXACT_DB, quality

IMAGES = np.random.default_rng(0).random((4, 16, 12, 3))


def test_noise_of_known_size():
    """Noise of standard deviation 0.1 is 20 dB below a peak of 1."""
    noise = np.random.default_rng(1).normal(0, 0.1, (4, 64, 64, 3))
    found = quality(np.full_like(noise, 0.5), 0.5 + noise)
    assert found["psnr_db"] == pytest.approx(20, abs=0.1)


def test_equal_images():
    assert quality(IMAGES, IMAGES) == {"psnr_db": EXACT_DB, "ssim": pytest.approx(1)}


def test_ssim_is_wangs():
    """Of images that differ in their mean alone it is the luminance term, (2 a b + C) / (a^2 + b^2 + C), C = 0.01^2."""
    a, b, small = 0.4, 0.6, 0.01**2
    found = quality(np.full((1, 16, 16, 1), a), np.full((1, 16, 16, 1), b))
    assert found["ssim"] == pytest.approx((2 * a * b + small) / (a**2 + b**2 + small))
    assert quality(IMAGES, 1 - IMAGES)["ssim"] < 0


def test_images_smaller_than_the_window():
    assert quality(IMAGES[:, :10], IMAGES[:, :10]) == {"psnr_db": EXACT_DB, "ssim": None}
