"""Images and labels as a user gives them, and as the halves take them: understood, or refused with the way on."""

from __future__ import annotations

from typing import Any

import numpy as np

from vae_common.errors import InputError, one_line

DARKEST = 16
"""8-bit images whose largest value is not above this were never brought to 0 to 255."""


A_SET = 10
"""Images of which one at least would be brighter, if they had been brought to 0 to 255."""


def unit(images: np.ndarray) -> np.ndarray:
    """Images as float64 in [0, 1]: 8-bit ones over 255, others as they are."""
    return images / 255 if images.dtype == np.uint8 else images.astype(np.float64)


def as_uint8(images: np.ndarray) -> np.ndarray:
    """Masks of False and True as uint8 of 0 and 255; other images as they are."""
    return images.astype(np.uint8) * np.uint8(255) if images.dtype == np.bool_ else images


def require_scaled(images: np.ndarray, where: str) -> None:
    """Raises InputError for 8-bit images that were never brought to 0 to 255: masks of 0 and 1, digits of 0 to 16."""
    largest = int(images.max()) if images.size and images.dtype == np.uint8 else 255
    if largest <= DARKEST:
        scaled = "images * 255" if largest <= 1 else f"(images.astype(float) * 255 / {largest}).astype(np.uint8)"
        raise InputError(
            f"{where}: received 8-bit images whose largest value is {largest}, expected values from 0 to 255; "
            f"scale them, {scaled}, or give masks as bool, images.astype(bool)"
        )


def as_pixels(images: np.ndarray, value_range: tuple[float, float] | None, where: str) -> np.ndarray:
    """A set's images as uint8 or, of 16-bit and float ones, float32 in [0, 1]; InputError where the range is not sure.

    Without a stated range 16-bit ones go to 65535 and floats to 1; what stays far below that was made for another one.
    """
    images = as_uint8(images)
    if images.dtype == np.uint8:
        if value_range is not None:
            raise InputError(
                f"value_range: received {value_range} for 8-bit images, which go from 0 to 255; leave it out"
            )
        return images
    sixteen = images.dtype == np.uint16
    low, high = value_range or ((0.0, 65535.0) if sixteen else (0.0, 1.0))
    if not images.size:
        return images.astype(np.float32)
    least, most = float(images.min()), float(images.max())
    if not (low <= least and most <= high):  # NaN fails both
        raise InputError(
            f"{where}: received {images.dtype} images from {least:g} to {most:g}, expected {low:g} to {high:g}: "
            "finite, and within a stated value_range"
        )
    if value_range is None and most <= high * DARKEST / 255:
        raise InputError(
            f"{where}: received {images.dtype} images whose largest value is {most:g}, expected up to {high:g}; "
            "state their value_range, for example 0 4095"
        )
    return ((images.astype(np.float64) - low) / (high - low)).astype(np.float32)


def as_array(name: str, value: Any) -> np.ndarray:
    """What a user gave as a NumPy array, a framework's array too; InputError where it is none.

    A tensor's gradient is none of an array's business.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(f"{name}: received an array with masked entries, expected whole ones: value.filled(...)")
    try:
        found = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"{name}: received {type(value).__name__}, expected an array ({one_line(error, 80)})"
        ) from error
    if found.dtype.kind not in "biufc":
        raise InputError(f"{name}: received {found.dtype} {found.shape}, expected an array of numbers")
    return found


def as_numbers(name: str, value: Any, dtype: str) -> np.ndarray:
    """What a user gave as an array of real numbers that are finite in this dtype; InputError where it is none."""
    found = as_array(name, value)
    real = found.dtype.kind in "iuf"
    with np.errstate(over="ignore"):
        cast = found.astype(dtype) if real else found
    if not real or not np.isfinite(cast).all():
        raise InputError(f"{name}: received {found.dtype} {found.shape}, expected real numbers, finite in {dtype}")
    return cast


def as_labels(labels: Any, classes: int, count: int) -> np.ndarray | None:
    """A user's labels as a model with that many classes takes them, int32 (count,); None where it has none.

    Raises InputError where they do not fit.
    """
    if (labels is None) != (not classes):
        given, expected = "none" if labels is None else "some", "some" if classes else "none"
        raise InputError(f"labels: received {given}, expected {expected}: the model has {classes} classes")
    if labels is None:
        return None
    labels = as_array("labels", labels)
    expected = f"{count} integers from 0 to {classes - 1}"
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(f"labels: received {labels.dtype} {labels.shape}, expected {expected}")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(f"labels: received labels from {labels.min()} to {labels.max()}, expected {expected}")
    integers: np.ndarray = labels.astype(np.int32)
    return integers


def as_unit_images(images: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Any user's images as (N, height, width, channels): uint8, or floats in [0, 1].

    Takes (N, h, w, c), (N, h, w) where c is 1, and flat (N, h*w*c). Raises InputError otherwise.
    """
    images = as_array("images", images)
    height, width, channels = image_shape
    shapes = {image_shape, (height * width * channels,)} | ({(height, width)} if channels == 1 else set())
    if images.ndim < 2 or images.shape[1:] not in shapes:
        first = images.shape[1:] == (channels, height, width)
        mend = "; channels come last: np.moveaxis(images, 1, -1)" if first else ""
        raise InputError(f"images: received shape {images.shape}, expected (N, {height}, {width}, {channels}){mend}")
    images = as_uint8(images)
    if images.dtype == np.uint8:
        if len(images) >= A_SET or (images.any() and images.max() == 1):  # a few may be dark
            require_scaled(images, "images")
    elif not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"images: received {images.dtype}, expected uint8, bool, or floats in [0, 1]")
    elif images.size and not (images.min() >= 0 and images.max() <= 1):  # NaN fails both
        raise InputError(f"images: received {images.dtype} outside [0, 1] or NaN, expected [0, 1]")
    wide = np.dtype(np.float64) if images.dtype.itemsize > 8 else images.dtype
    images = images.astype(wide.newbyteorder("="), copy=False)  # frameworks take no other
    return np.ascontiguousarray(images).reshape(-1, height, width, channels)


def require_binarized(images: np.ndarray, binarization: str) -> None:
    """Raises InputError where an experiment on binarized images is given grey ones (uint8, or floats in [0, 1])."""
    if binarization == "none":
        return
    highest = 255 if images.dtype == np.uint8 else 1
    if not ((images == 0) | (images == highest)).all():
        raise InputError(
            f"images: received grey ones, expected binarized: the experiment's binarization is {binarization}; "
            "use evaluation_images or binarize(images, 'static', 'test') of vae_common.data.seen"
        )
