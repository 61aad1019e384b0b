"""The shared loader: images as uint8 (N, height, width, channels), labels as integers (N,).

    mnist = datasets.load("mnist")                                  # downloads and prepares once
    mnist = datasets.load("mnist", manual_dir="originals/")         # original files at hand
    mine = datasets.load("cells.npz")

What TensorFlow Datasets prepared is decoded once into one cache file per set, which later loads in a
fraction of a second with neither TensorFlow nor TensorFlow Datasets installed.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vae_common import randomness, sources
from vae_common.checkpoints import write_atomically
from vae_common.configs import Config, InputError

CACHE_VERSION = 1
MOST_CLASSES = 10_000


@dataclass(frozen=True)
class Split:
    """Images and their labels; a label of -1 means that there is none."""

    images: np.ndarray
    """uint8, (N, height, width, channels), read-only."""
    labels: np.ndarray
    """int64, (N,)."""

    def __len__(self) -> int:
        return len(self.images)


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
        """SHA-256 of the training images: a run goes on with those that it was begun with."""
        images = self.train.images
        return hashlib.sha256(f"{images.shape}".encode() + images.tobytes()).hexdigest()

    def require_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Raises InputError where a config was made for images of another shape."""
        if self.image_shape != image_shape:
            raise InputError(
                f"image_shape: received {image_shape}, but {self.name} has {self.image_shape}; "
                "make the config with image_shape=dataset.image_shape"
            )

    def require_labels(self, classes: int) -> None:
        """Raises InputError where a model is given classes and these images have no such labels."""
        labels = self.train.labels
        if classes and not 0 <= labels.min() <= labels.max() < classes:
            have = f"labels from {labels.min()} to {labels.max()}" if labels.min() >= 0 else "no labels"
            raise InputError(
                f"classes: received {classes}, but {self.name} has {have}; expected one more than the last"
            )

    def hold_out(self, size: int) -> Dataset:
        """This set with `size` training images, a fixed draw, as its validation split."""
        if size == 0:
            return self
        if size >= len(self.train):
            raise InputError(
                f"validation_size: received {size}, expected fewer than the {len(self.train)} training images"
            )
        order = randomness.split_order(len(self.train))
        return replace(
            self,
            train=_take(self.train, np.sort(order[size:])),
            validation=_take(self.train, np.sort(order[:size])),
        )


def load(
    name: str, *, data_dir: str | Path = "data", manual_dir: str | Path | None = None, progress: bool = False
) -> Dataset:
    """Loads a set by name or path, preparing and caching it first where that is needed.

    Args:
        name: `digits` or `photos`, which are built in; a TensorFlow Datasets name (`mnist`, `emnist/letters`,
            `cifar10:3.0.2`); an `.npz` file; or a folder with the four IDX files.
        data_dir: where prepared and decoded sets are kept.
        manual_dir: a folder that already holds the set's original files, to work offline.
        progress: report what is being decoded on standard error.

    Raises:
        InputError: in one line, what is wrong and how to mend it.
    """
    if not name:
        raise InputError("dataset: received an empty name, expected digits, photos, mnist, an .npz file or a folder")
    if name == "digits":
        return _assemble(name, sources.read_digits(), "scikit-learn's digits, resized to 28x28")
    if name == "photos":
        return _assemble(name, sources.read_photos(), "32x32 patches of scikit-learn's two sample photographs")
    path = Path(name).expanduser()
    if name.endswith(".npz"):
        return _assemble(path.stem, sources.read_npz(path), f"file {path.name}")
    if path.is_dir():
        return _assemble(path.name, sources.read_idx_folder(path), f"IDX files in {path.name}")
    if name.startswith((".", "~", os.sep)):
        raise InputError(f"dataset: received {name}, which does not exist; expected an .npz file or a folder")
    cache = cache_path(name, data_dir)
    if not cache.exists():
        arrays = sources.read_tfds(name, Path(data_dir), manual_dir, progress)
        source = f"TensorFlow Datasets {arrays.pop('full_name')}"
        dataset = _assemble(name, arrays, source)  # checked before it is kept
        _write_cache(cache, dataset)
        return dataset
    return _read_cache(name, cache)


def cache_path(name: str, data_dir: str | Path) -> Path:
    """The decoded file of a TensorFlow Datasets name."""
    return Path(data_dir) / (name.replace("/", "-").replace(":", "-") + ".npz")


def binarize(images: np.ndarray, mode: str, split: str) -> np.ndarray:
    """The fixed binarizations, as uint8 of 0 and 255; grey images come back as they are.

    `threshold` is the pixel's round to 0 or 1; `static` draws each pixel once, with its grey value as
    the probability, the same for every experiment. `dynamic` draws anew at every training step, on
    the device; a split that is evaluated gets the static draw.
    """
    if mode == "none":
        return images
    threshold = 127 if mode == "threshold" else randomness.static_thresholds(split, images.shape)
    return np.where(images > threshold, np.uint8(255), np.uint8(0))


def training_images(dataset: Dataset, mode: str) -> np.ndarray:
    """The training split as it goes to the device, uint8: grey where each step binarizes anew."""
    return binarize(dataset.train.images, "none" if mode == "dynamic" else mode, "train")


def evaluation_images(dataset: Dataset, mode: str, split: str | None = None) -> tuple[str, np.ndarray]:
    """A split's name and its images as an evaluation sees them: binarized, where the experiment is.

    The default is the split that is evaluated after every epoch: validation where there is one, else
    test.
    """
    split = split or ("test" if dataset.validation is None else "validation")
    images = getattr(dataset, split).images
    return split, binarize(images, "static" if mode == "dynamic" else mode, split)


def labels_for(split: Split, config: Config) -> np.ndarray | None:
    """A split's labels where the config's model is given classes, else None."""
    return split.labels if config.network.classes else None


def as_labels(labels: np.ndarray | None, classes: int, count: int) -> np.ndarray | None:
    """A user's labels as a model with that many classes takes them, int32 (count,); None where it has none.

    Raises InputError where they do not fit.
    """
    if (labels is None) != (not classes):
        given, expected = "none" if labels is None else "some", "some" if classes else "none"
        raise InputError(f"labels: received {given}, expected {expected}: the model has {classes} classes")
    if labels is None:
        return None
    labels = np.asarray(labels)
    integers = labels.shape == (count,) and labels.dtype.kind in "iu"
    if not integers or not ((labels >= 0) & (labels < classes)).all():
        raise InputError(f"labels: received {labels.dtype} {labels.shape}, expected {count} from 0 to {classes - 1}")
    return labels.astype(np.int32)


def as_unit_images(images: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Any user's images as (N, height, width, channels): uint8, or floats in [0, 1].

    Takes (N, h, w, c), (N, h, w) where c is 1, and flat (N, h*w*c). Raises InputError otherwise.
    """
    images = np.asarray(images)
    height, width, channels = image_shape
    shapes = {image_shape, (height * width * channels,)} | ({(height, width)} if channels == 1 else set())
    if images.ndim < 2 or images.shape[1:] not in shapes:
        raise InputError(f"images: received shape {images.shape}, expected (N, {height}, {width}, {channels})")
    if images.dtype == np.bool_:
        images = images.astype(np.uint8) * np.uint8(255)
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise InputError(f"images: received {images.dtype}, expected uint8 or floats in [0, 1]")
        if images.size and not (images.min() >= 0 and images.max() <= 1):  # NaN fails both
            raise InputError(f"images: received {images.dtype} outside [0, 1] or NaN, expected [0, 1]")
    images = images.astype(images.dtype.newbyteorder("="), copy=False)  # frameworks take no other
    return np.ascontiguousarray(images).reshape(-1, height, width, channels)


def _assemble(name: str, arrays: Mapping, source: str) -> Dataset:
    train = _split(name, "train", arrays["train_images"], arrays["train_labels"])
    test = _split(name, "test", arrays["test_images"], arrays["test_labels"])
    if train.images.shape[1:] != test.images.shape[1:]:
        raise InputError(
            f"dataset {name}: training images are {train.images.shape[1:]}, test images {test.images.shape[1:]}; "
            "expected one shape"
        )
    names = tuple(str(label) for label in np.atleast_1d(np.asarray(arrays.get("class_names", ()), str)))
    highest = int(max(train.labels.max(), test.labels.max()))
    if names and highest >= len(names):
        raise InputError(f"dataset {name}: received labels up to {highest}, expected less than {len(names)}")
    names = names or tuple(str(label) for label in range(highest + 1))
    return Dataset(name, train, test, names, source)


def _split(name: str, split: str, images: np.ndarray, labels: np.ndarray) -> Split:
    where = f"dataset {name}, {split} split"
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(
            f"{where}: received {images.dtype} of shape {images.shape}, not images; "
            "expected uint8 (N, height, width[, channels])"
        )
    if not images.size:
        raise InputError(f"{where}: received no images, expected at least one")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{where}: received labels {labels.dtype} {labels.shape} for {len(images)} images, "
            "expected one integer per image"
        )
    if labels.min() < -1 or labels.max() >= MOST_CLASSES or (labels.min() == -1 and labels.max() > -1):
        raise InputError(
            f"{where}: received labels from {labels.min()} to {labels.max()}, "
            f"expected class numbers from 0 to {MOST_CLASSES - 1}, or -1 for every image where there are none"
        )
    images = np.ascontiguousarray(images).view()
    images.setflags(write=False)
    return Split(images, labels.astype(np.int64))


def _take(split: Split, indices: np.ndarray) -> Split:
    images = split.images[indices]
    images.setflags(write=False)
    return Split(images, split.labels[indices])


def _write_cache(path: Path, dataset: Dataset) -> None:
    arrays: dict[str, Any] = {
        "cache_version": np.array(CACHE_VERSION),
        "source": np.array(dataset.source),
        "class_names": np.array(dataset.class_names),
        "train_images": dataset.train.images,
        "train_labels": dataset.train.labels,
        "test_images": dataset.test.images,
        "test_labels": dataset.test.labels,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def _read_cache(name: str, path: Path) -> Dataset:
    mend = f"delete {path} and load {name} again"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        version = int(arrays["cache_version"])
        source = str(arrays["source"])
        missing = {f"{split}_{kind}" for split in ("train", "test") for kind in ("images", "labels")} - set(arrays)
    except (*sources.UNREADABLE, KeyError) as error:
        raise InputError(f"dataset {name}: its cache file is damaged ({error}); {mend}") from error
    if missing:
        raise InputError(f"dataset {name}: its cache file lacks {', '.join(sorted(missing))}; {mend}")
    if version != CACHE_VERSION:
        raise InputError(f"dataset {name}: its cache is version {version}, expected {CACHE_VERSION}; {mend}")
    return _assemble(name, arrays, source)
