"""Images as an experiment sees them: grey or binarized, with labels where its model is given any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_common import randomness
from vae_common.config import Config
from vae_common.data.batches import require_evaluable, require_reconstruction
from vae_common.data.pixels import as_array, as_uint8, as_unit_images, require_scaled
from vae_common.data.splits import SPLITS, Dataset, Split
from vae_common.data.streams import CHUNK, Stream, shown_count
from vae_common.errors import InputError, require, shown

BINARIZATIONS = ("none", "threshold", "static", "dynamic")
EVALUATED = 1000
"""Images of a stream that are evaluated at a time, if they are no more than a chunk."""
KEPT = 256 << 20
"""Bytes of images and draws that stay on a device for all evaluations of a training."""
BLACK, WHITE = np.uint8(0), np.uint8(255)


def binarize(images: np.ndarray, mode: str, split: str) -> np.ndarray:
    """The fixed binarizations, as uint8 of 0 and 255; grey images come back as they are.

    `threshold` is the pixel's round to 0 or 1; `static` draws each pixel once, with its grey value as
    the probability, the same for every experiment. `dynamic` draws anew at every training step, on
    the device; a split that is evaluated gets the static draw.

    Args:
        images: uint8 from 0 to 255, or bool; float32 in [0, 1] for none and threshold.
        mode: none, threshold or static.
        split: train, validation or test: each has a draw of its own.

    Raises:
        InputError: for an unknown mode or split, and for images of another kind or another range.
    """
    for flag, received, choices in (("binarization", mode, BINARIZATIONS[:3]), ("split", split, SPLITS)):
        if not (isinstance(received, str) and received in choices):
            raise InputError(f"{flag}: received {shown(received)}, expected one of {', '.join(choices)}")
    images = as_uint8(as_array("images", images))
    if images.dtype == np.float32 and mode in ("none", "threshold"):
        return images if mode == "none" else np.where(images > 0.5, np.uint8(255), np.uint8(0))
    if images.dtype != np.uint8:
        raise InputError(f"images: received {images.dtype}, expected uint8 from 0 to 255, or bool")
    if images.any():  # all black is what it says
        require_scaled(images, "images")
    if mode == "none":
        return images
    threshold = 127 if mode == "threshold" else randomness.static_thresholds(split, images.shape)
    return np.where(images > threshold, np.uint8(255), np.uint8(0))


def training_images(dataset: Dataset, mode: str) -> Any:
    """The training split as it goes to the device, uint8: grey where each step binarizes anew. Of a stream what reads
    it."""
    if dataset.train.streamed:  # its chunks are binarized as they are read
        return dataset.train.images
    return binarize(dataset.train.images, "none" if mode == "dynamic" else mode, "train")


@dataclass(frozen=True)
class SeenStream:
    """A streamed split as an experiment sees it where it is evaluated, some images at a time."""

    images: Stream
    mode: str
    split: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def at_once(self) -> int:
        """How many images are evaluated at a time."""
        return max(1, min(EVALUATED, CHUNK // self.images.image_bytes))

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Images that are evaluated at the same time.

        The static draw is made for each such part: it is another than of images in memory.
        """
        first, last, _ = rows.indices(len(self))
        images = self.images[first:last]
        if self.mode == "static":
            number, begin = divmod(first, self.at_once)
            shape = (min(self.at_once, len(self) - first + begin), *images.shape[1:])
            bounds = randomness.static_thresholds(f"{self.split} {number}", shape)[begin : begin + len(images)]
            return np.where(images > bounds, WHITE, BLACK)
        return images if self.mode == "none" else np.where(images > 127, WHITE, BLACK)


def as_evaluable(images: Any, config: Config, image_shape: tuple[int, int, int], reconstruction: str) -> Any:
    """Anybody's images, or a stream as `evaluated_by` gives it, as a model's evaluation takes rows of them.

    Raises InputError as `require_evaluable` does, and where they are none of that shape.
    """
    if not isinstance(images, SeenStream):
        images = as_unit_images(images, image_shape)
        require_evaluable(config, reconstruction, images)
    else:
        require(images.images.shape[1:] == image_shape, "images", images.images.shape, f"images of {image_shape}")
        wanted = evaluated_as(config)
        require(images.mode == wanted, "images", f"a stream binarized as {images.mode}", f"{wanted}: see evaluated_by")
        require_reconstruction(config, reconstruction)
    return images


def may_stay(images: Any, noise_dim: int) -> bool:
    """Whether images may stay on a device with their draws, from one evaluation to the next."""
    return not isinstance(images, SeenStream) and images.nbytes + 8 * noise_dim * len(images) <= KEPT


def parts_of(images: Any, at_once: int) -> Iterator[slice]:
    """The rows that are evaluated together, in their order: so many, of a stream as many as it says."""
    at_once = images.at_once if isinstance(images, SeenStream) else at_once
    return (slice(first, min(first + at_once, len(images))) for first in range(0, len(images), at_once))


def evaluation_images(dataset: Dataset, mode: str, split: str | None = None) -> tuple[str, np.ndarray]:
    """A split's name and its images as an evaluation sees them: binarized, where the experiment is.

    The default is the split that is evaluated after every epoch: validation where there is one, else
    test.
    """
    split = split_of(dataset, split)
    images = dataset.splits[split].shown.images
    return split, binarize(images, "static" if mode == "dynamic" else mode, split)


def split_of(dataset: Dataset, split: str | None = None) -> str:
    """The split that is asked for; the default is the one that is evaluated after every epoch."""
    split = split or ("test" if dataset.validation is None else "validation")
    if not (isinstance(split, str) and split in dataset.splits):
        raise InputError(f"split: received {shown(split)}, expected one of {', '.join(dataset.splits)}")
    return split


@dataclass(frozen=True)
class Seen:
    """A split as an experiment's model sees it where it is evaluated."""

    split: str
    images: np.ndarray
    """uint8, or float32 in [0, 1], (N, height, width, channels): binarized, where the experiment is."""
    labels: np.ndarray | None
    """(N,), where the model is given classes."""


def seen_by(config: Config, dataset: Dataset, split: str | None = None) -> Seen:
    """A split as the config's model sees it; the default is that of `evaluation_images`. Of a stream a fixed draw."""
    name, images = evaluation_images(dataset, config.data.binarization, split)
    return Seen(name, images, labels_for(dataset.splits[name].shown, config))


def evaluated_by(config: Config, dataset: Dataset, split: str | None = None) -> Seen:
    """What `seen_by` gives, to be evaluated: of a large stream all of its images, part by part."""
    name = split_of(dataset, split)
    chosen = dataset.splits[name]
    if not isinstance(chosen.images, Stream) or shown_count(chosen.images) == len(chosen):
        return seen_by(config, dataset, name)
    images: Any = SeenStream(chosen.images, evaluated_as(config), name)
    return Seen(name, images, labels_for(chosen, config))


def evaluated_as(config: Config) -> str:
    """How what is evaluated is binarized: once, where each training step does it anew."""
    mode = config.data.binarization
    return "static" if mode == "dynamic" else mode


def labels_for(split: Split, config: Config) -> np.ndarray | None:
    """A split's labels where the config's model is given classes, else None."""
    return split.labels if config.network.classes else None
