"""Images as an experiment sees them: grey or binarized, with labels where its model is given any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_common import randomness
from vae_common.config import Config
from vae_common.data.pixels import as_array, as_uint8, require_scaled
from vae_common.data.splits import SPLITS, Dataset, Split
from vae_common.data.streams import CHUNK, Stream, shown_count
from vae_common.errors import InputError, shown

BINARIZATIONS = ("none", "threshold", "static", "dynamic")
PART = 1000
"""Images of a stream that are evaluated at a time, if they are no more than a chunk."""
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

    def parts(self) -> Iterator[np.ndarray]:
        """The images in their order. The static draw is made for each part: it is another than of images in memory."""
        step = max(1, min(PART, CHUNK // self.images.image_bytes))
        for number, first in enumerate(range(0, len(self), step)):
            part = self.images[first : first + step]
            if self.mode == "static":
                yield np.where(part > randomness.static_thresholds(f"{self.split} {number}", part.shape), WHITE, BLACK)
            else:
                yield part if self.mode == "none" else np.where(part > 127, WHITE, BLACK)


def parts_of(images: Any, labels: np.ndarray | None) -> Iterator[tuple[Any, np.ndarray | None]]:
    """Images and their labels as they are evaluated: of a stream part by part, others all at once."""
    if not isinstance(images, SeenStream):
        yield images, labels
        return
    first = 0
    for part in images.parts():
        yield part, None if labels is None else labels[first : first + len(part)]
        first += len(part)


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
    mode = config.data.binarization
    images: Any = SeenStream(chosen.images, "static" if mode == "dynamic" else mode, name)
    return Seen(name, images, labels_for(chosen, config))


def labels_for(split: Split, config: Config) -> np.ndarray | None:
    """A split's labels where the config's model is given classes, else None."""
    return split.labels if config.network.classes else None
