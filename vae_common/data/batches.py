"""What a training step and an epoch are given, checked before they run: frameworks broadcast and cast without a word.

Shapes and types are checked of every array, values of NumPy's alone: reading an array that is on a device would wait
for it. Inside a compiled step nothing is checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vae_common.config import Config
from vae_common.data.pixels import as_array, as_labels, as_uint8, require_binarized, require_scaled
from vae_common.errors import InputError, require
from vae_common.randomness import Draws, steps_per_epoch


def require_batch(config: Config, images: Any, noise: Any, labels: Any) -> None:
    """Raises InputError where a batch is none for a step of this experiment (see `train_step`)."""
    shape = _shape("images", images)
    batch = shape[0] if shape else 0
    where = f"(batch, {', '.join(map(str, config.image_shape))})"
    require(shape[1:] == config.image_shape and batch > 0, "images", shape, f"shape {where}, at least one")
    _require_kind("images", images, config, "floats in [0, 1]: 8-bit ones divided by 255 (see prepare_images)", "fb")
    expected = (batch, *config.noise_shape)
    require(_shape("noise", noise) == expected, "noise", _shape("noise", noise), f"shape {expected}: each image's own")
    _require_kind("noise", noise, config, "standard-normal floats", "f")
    if isinstance(images, np.ndarray) and images.dtype != np.bool_ and not (images.min() >= 0 and images.max() <= 1):
        raise InputError(f"images: received values from {images.min()} to {images.max()}, expected [0, 1]")
    if isinstance(noise, np.ndarray) and not np.isfinite(noise).all():
        raise InputError("noise: received NaN or infinite numbers, expected standard-normal ones")
    if labels is None or isinstance(labels, np.ndarray) or not config.network.classes:
        as_labels(labels, config.network.classes, batch)
    else:
        require(_shape("labels", labels) == (batch,), "labels", _shape("labels", labels), f"shape ({batch},)")


def require_epoch(config: Config, seeds: int, images: Any, draws: Draws, labels: Any) -> None:
    """Raises InputError where resident images, draws and labels are none for an epoch (see `train_epoch`).

    Args:
        seeds: of a stacked state; 0 for a single one.
    """
    shape, batch = _shape("images", images), config.training.batch_size
    right = shape[1:] == config.image_shape and str(images.dtype).removeprefix("torch.") in ("uint8", "float32")
    expected_shape = ", ".join(map(str, config.image_shape))
    require(right, "images", f"{images.dtype} {shape}", f"uint8 or float32 (N, {expected_shape})")
    own = (seeds,) if seeds else ()
    if not config.data.stream and draws.order.shape[0] * batch > shape[0]:  # of a stream each process has its part
        drawn = draws.order.shape[0] * batch
        raise InputError(f"draws: received ones for {drawn} images, expected at most the {shape[0]} that there are")
    given = _shape("draws", draws.order)
    require(given[1:] == (*own, batch) and given[0] > 0, "draws.order", given, f"shape (steps, {(*own, batch)})")
    expected: dict[str, tuple[int, ...] | None] = {"noise": (*given, *config.noise_shape), "thresholds": None}
    if config.data.binarization == "dynamic":
        expected["thresholds"] = (*given, *config.image_shape)
    if config.training.randomness == "counter":  # a step's key and its place, from which it makes the numbers
        expected = {name: None if shape is None else (*given[:-1], 3) for name, shape in expected.items()}
    for name, wanted in expected.items():
        array = getattr(draws, name)
        found = None if array is None else _shape(f"draws.{name}", array)
        require(found == wanted, f"draws.{name}", found, f"shape {wanted}: made by epoch_draws of this config")
    given_labels = None if labels is None else _shape("labels", labels)
    wanted_labels = shape[:1] if config.network.classes else None
    require(given_labels == wanted_labels, "labels", given_labels, f"{wanted_labels}: one per image, or None")


def require_resident(config: Config, images: Any, of_a_set: bool = False) -> np.ndarray:
    """Training images, all of them or a part of a set, which may be dark or empty, as they go to the device.

    InputError where they are not of the config's shape and 8-bit from 0 to 255, bool, or float32 in [0, 1].
    """
    found: np.ndarray = as_uint8(as_array("images", images))
    levels = found.dtype == np.float32 and found.size and 0 <= found.min() <= found.max() <= 1
    right = (found.dtype == np.uint8 or levels) and found.shape[1:] == config.image_shape
    shape = ", ".join(map(str, config.image_shape))
    expected = f"uint8, bool, or float32 in [0, 1], (N, {shape})"
    require(bool(right), "images", f"{found.dtype} {found.shape}", expected)
    if of_a_set:
        return found
    if found.any():  # all black is what it says
        require_scaled(found, "images")
    steps_per_epoch(len(found), 1)
    return found


def require_evaluable(config: Config, reconstruction: str, images: np.ndarray) -> None:
    """Raises InputError where there is no image, grey ones of a binarized experiment, or another likelihood than the
    model's own."""
    require_reconstruction(config, reconstruction)
    if not len(images):
        raise InputError("images: received none, expected at least one")
    require_binarized(images, config.data.binarization)


def require_reconstruction(config: Config, reconstruction: str) -> None:
    """Raises InputError where a config's likelihood is another than the model's own."""
    if config.loss.reconstruction != reconstruction:
        received = f"reconstruction {config.loss.reconstruction}"
        raise InputError(f"config: received {received}, expected the model's {reconstruction}")


def require_labels(config: Config, labels: Any) -> np.ndarray:
    """Training labels as they go to the device for a whole fit, int32; InputError where they are not the model's."""
    labels = as_array("labels", labels)
    checked = as_labels(labels, config.network.classes, labels.size)
    assert checked is not None  # labels that a model takes none of have been refused
    return checked


def _shape(name: str, array: Any) -> tuple[int, ...]:
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise InputError(f"{name}: received {type(array).__name__}, expected an array")
    return tuple(array.shape)


def _require_kind(name: str, array: Any, config: Config, expected: str, kinds: str) -> None:
    """NumPy's arrays may be of any of these kinds: they are cast. A framework's own have to be of the state's dtype."""
    if isinstance(array, np.ndarray):
        require(array.dtype.kind in kinds, name, str(array.dtype), expected)
    else:
        kind = str(array.dtype).removeprefix("torch.")
        require(kind == config.training.dtype, name, kind, f"{expected}, {config.training.dtype} on a device")
