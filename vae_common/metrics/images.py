"""How near reconstructions come to their images: PSNR and SSIM, by scikit-image."""

from __future__ import annotations

from typing import Any

import numpy as np

WINDOW = 11
"""Pixels to a side of what SSIM compares at once."""
EXACT_DB = 100.0
"""What an image that is reproduced exactly counts as."""


def quality(images: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
    """Means over images (N, height, width, channels), both in [0, 1].

    Returns:
        `psnr_db`, the peak signal-to-noise ratio in decibels, and `ssim`, the structural similarity in [-1, 1] as
        Wang et al. 2004 define it (Gaussian weights of sigma 1.5, the population's covariance, mean over channels);
        None where an image is smaller than its window of 11 pixels.
    """
    import skimage.metrics

    metrics: Any = skimage.metrics
    pairs = list(zip(images.astype(np.float64), decoded.astype(np.float64)))
    with np.errstate(divide="ignore"):
        ratios = [metrics.peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in pairs]
    found: dict[str, float | None] = {"psnr_db": float(np.minimum(ratios, EXACT_DB).mean()), "ssim": None}
    if min(images.shape[1:3]) >= WINDOW:
        how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        each = [metrics.structural_similarity(a, b, data_range=1.0, channel_axis=-1, **how) for a, b in pairs]
        found["ssim"] = float(np.mean(each))
    return found
