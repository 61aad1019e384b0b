"""A set's splits: images, labels, names of classes, and what a config asks of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from vae_common import randomness
from vae_common.config import Config
from vae_common.config.checks import require_count
from vae_common.data.pixels import A_SET, require_scaled
from vae_common.data.streams import Stream, Taken, require_streamable, shown_rows
from vae_common.errors import InputError, one_line

SPLITS = ("train", "validation", "test")
WHOLE = "all:"
"""Begins a fingerprint of everything; earlier ones were of the training images alone."""


@dataclass(frozen=True)
class Split:
    """Images and their labels; a label of -1 means that there is none."""

    images: Any
    """uint8, or float32 in [0, 1] where the set has more levels; (N, height, width, channels), read-only. Of a stream
    what reads them (see streams.py)."""
    labels: np.ndarray
    """int64, (N,)."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def streamed(self) -> bool:
        """Whether its images are read where they are needed."""
        return isinstance(self.images, Stream)

    @cached_property
    def shown(self) -> Split:
        """This split, of a stream a fixed draw: all of it, where it is not large."""
        if not isinstance(self.images, Stream):
            return self
        rows = shown_rows(self.images)
        return Split(self.images[rows], self.labels[rows])

    @property
    def some(self) -> np.ndarray:
        """The images, or of a stream a fixed draw of them."""
        return self.images.drawn() if isinstance(self.images, Stream) else self.images


@dataclass(frozen=True)
class Dataset:
    """A set's splits, with what a record must say of where they came from."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    source: str
    validation: Split | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides a number: every split's images and labels, and the names of the classes."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for name, split in self.splits.items():
            digest.update(f"{name} {split.images.dtype} {split.images.shape}".encode())
            if split.streamed:
                digest.update(split.images.fingerprint().encode())
            else:
                digest.update(np.ascontiguousarray(split.images).data)
            digest.update(np.ascontiguousarray(split.labels, np.int64).data)
        return WHOLE + digest.hexdigest()

    def matches(self, fingerprint: str) -> bool | None:
        """Whether a run that carries this fingerprint saw these data; None where it is unknown.

        Runs of earlier versions carry one of their training images alone: what else they saw is unknown.
        """
        if fingerprint.startswith(WHOLE):
            return fingerprint == self.fingerprint
        images = self.train.images
        same = fingerprint == hashlib.sha256(f"{images.shape}".encode() + images.tobytes()).hexdigest()
        return None if same else False

    @property
    def shown(self) -> Dataset:
        """This set with, of a streamed test split, a fixed draw: what figures and latent metrics are made of."""
        return replace(self, test=self.test.shown) if self.test.streamed else self

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        return {name: getattr(self, name) for name in SPLITS if getattr(self, name) is not None}

    def require_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Raises InputError where a config was made for images of another shape."""
        if self.image_shape != image_shape:
            raise InputError(
                f"image_shape: received {image_shape}, but {self.name} has {self.image_shape}; "
                "make the config with image_shape=dataset.image_shape"
            )

    def require_labels(self, classes: int) -> None:
        """Raises InputError where a model is given classes and these images have no such labels.

        Every class has to be there in training: the model would be asked for one that it never saw.
        """
        if not classes:
            return
        for name, split in self.splits.items():
            low, high = split.labels.min(), split.labels.max()
            if not 0 <= low <= high < classes:
                have = f"labels from {low} to {high}" if low >= 0 else "no labels"
                raise InputError(
                    f"classes: received {classes}, but the {name} split of {self.name} has {have}; "
                    "expected one more than the last"
                )
        absent = sorted(set(range(classes)) - set(np.unique(self.train.labels).tolist()))
        if absent:
            raise InputError(
                f"classes: received {classes}, but no training image of {self.name} has the label "
                f"{one_line(', '.join(map(str, absent)), 60)}; expected labels numbered from 0 without a gap"
            )

    def require_count(self, config: Config) -> None:
        """Raises InputError where a config says another number of training images."""
        if config.train_images not in (0, len(self.train)):
            said = f"received {config.train_images}, but {self.name} has {len(self.train)} to train on"
            raise InputError(f"train_images: {said}; expected that, which the objective weighs by")

    def require_levels(self, config: Config) -> None:
        """Raises InputError where a config is made for 8-bit images and these have more levels."""
        if self.train.images.dtype == np.uint8:
            return
        if config.loss.likelihood.eight_bit:
            raise InputError(
                f"reconstruction: received {config.loss.reconstruction}, which is of 8-bit pixels, and "
                f"{self.name} has more levels; expected gaussian or learned_gaussian"
            )
        if config.data.binarization in ("static", "dynamic"):
            raise InputError(
                f"binarization: received {config.data.binarization}, which draws 8-bit pixels, and "
                f"{self.name} has more levels; expected none or threshold"
            )

    def require_streamable(self, config: Config) -> None:
        """Raises InputError where a stream is asked for what only images in memory give, or a config says of these
        images that they are another kind."""
        require_streamable(config, self.train.streamed)

    def named(self, class_names: Sequence[str]) -> Dataset:
        """This set with other names for its classes; none leaves what it has."""
        highest = max(int(split.labels.max()) for split in self.splits.values())
        if class_names and len(class_names) <= highest:
            raise InputError(f"class_names: received {len(class_names)}, expected {highest + 1}: one per label")
        return replace(self, class_names=tuple(class_names)) if class_names else self

    def hold_out(self, size: int) -> Dataset:
        """This set with `size` training images, a fixed draw, as its validation split."""
        require_count("validation_size", size)
        if size == 0:
            return self
        if self.validation is not None:
            own = len(self.validation)
            raise InputError(
                f"validation_size: received {size}, but {self.name} has {own} validation images; expected 0"
            )
        if size >= len(self.train):
            raise InputError(
                f"validation_size: received {size}, expected fewer than the {len(self.train)} training images"
            )
        order = randomness.split_order(len(self.train))
        rows = {"train": np.sort(order[size:]), "validation": np.sort(order[:size])}
        parts: dict[str, Any] = {name: _take(self.train, of) for name, of in rows.items()}
        for name, part in parts.items():
            if not part.streamed and (name == "train" or len(part) >= A_SET):
                require_scaled(part.images, f"dataset {self.name}, {name} split")
        return replace(self, **parts)


def _take(split: Split, indices: np.ndarray) -> Split:
    if isinstance(split.images, Stream):
        return Split(Taken(split.images, indices), split.labels[indices])
    images = split.images[indices]
    images.setflags(write=False)
    return Split(images, split.labels[indices])
