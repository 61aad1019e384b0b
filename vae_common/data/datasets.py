"""The shared loader: images as uint8, or float32 in [0, 1], (N, height, width, channels), labels as integers (N,).

    mnist = datasets.load("mnist")                                  # downloads and prepares once
    mnist = datasets.load("mnist", manual_dir="originals/")         # original files at hand
    mine = datasets.load("cells.npz")

What TensorFlow Datasets prepared is decoded once into one cache file per set, which later loads in a
fraction of a second with neither TensorFlow nor TensorFlow Datasets installed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vae_common import randomness
from vae_common.config import Config, DataConfig
from vae_common.config.checks import require_count
from vae_common.data import image_folders, readers
from vae_common.data.pixels import A_SET, as_array, as_pixels, as_uint8, require_scaled
from vae_common.errors import InputError, one_line, shown
from vae_common.files import in_turn, write_atomically

CACHE_VERSION = 1
MOST_CLASSES = 10_000
SPLITS = ("train", "validation", "test")
BINARIZATIONS = ("none", "threshold", "static", "dynamic")
WHOLE = "all:"
"""Begins a fingerprint of everything; earlier ones were of the training images alone."""
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Split:
    """Images and their labels; a label of -1 means that there is none."""

    images: np.ndarray
    """uint8, or float32 in [0, 1] where the set has more levels; (N, height, width, channels), read-only."""
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
        """SHA-256 of all that decides a number: every split's images and labels, and the names of the classes."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for name, split in self.splits.items():
            digest.update(f"{name} {split.images.dtype} {split.images.shape}".encode())
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
            if name == "train" or len(part) >= A_SET:
                require_scaled(part.images, f"dataset {self.name}, {name} split")
        return replace(self, **parts)


def load(
    name: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] = "data",
    manual_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
    value_range: tuple[float, float] | None = None,
    image_size: int = 0,
    fit: str = "crop",
    test_share: float = 0.1,
) -> Dataset:
    """Loads a set by name or path, preparing and caching it first where that is needed.

    Args:
        name: `digits` or `photos`, which are built in; a TensorFlow Datasets name (`mnist`, `emnist/letters`,
            `cifar10:3.0.2`); an `.npz` or `.npy` file; or a folder of image files, of `.npy` files or of IDX files.
        data_dir: where prepared and decoded sets are kept.
        manual_dir: a folder that already holds the set's original files, to work offline.
        progress: report what is being decoded on standard error.
        value_range: of 16-bit and float images, the values that are black and white; they become float32 in [0, 1].
        image_size: height and width that image files are brought to; 0 leaves them.
        fit: `crop` or `pad`: how they are, where they are no squares.
        test_share: of the images that become the test split, where there is none.

    Raises:
        InputError: in one line, what is wrong and how to mend it.
    """
    name, folder = _path_text("dataset", name), Path(_path_text("data_dir", data_dir))
    originals = None if manual_dir is None else _path_text("manual_dir", manual_dir)
    options = DataConfig(value_range=value_range, image_size=image_size, fit=fit, test_share=test_share)  # type: ignore[arg-type]
    if not name:
        raise InputError("dataset: received an empty name, expected digits, photos, mnist, an .npz file or a folder")
    if name == "digits":
        return _assemble(name, readers.read_digits(), "scikit-learn's digits, resized to 28x28")
    if name == "photos":
        return _assemble(name, readers.read_photos(), "32x32 patches of scikit-learn's two sample photographs")
    try:
        return _load_path(name, folder, options, progress) or _load_tfds(name, folder, originals, progress)
    except OSError as error:  # a name that is too long for a path, a folder that may not be read
        said = f"dataset: received {shown(name)}: {error.strerror or error}"
        raise InputError(f"{said}; expected a name, an .npz file or a folder") from error


def _path_text(flag: str, value: object) -> str:
    """A name or path as text; InputError where it is neither text nor a path."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or "\0" in text:
        raise InputError(f"{flag}: received {shown(value)}, expected a name or a path")
    return text


def _load_path(name: str, data_dir: Path, options: DataConfig, progress: bool) -> Dataset | None:
    """The set in a file or a folder; None where there is none of that name, and it does not look like one."""
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    span = options.value_range
    if path.suffix.lower() == ".npz":
        return _assemble(path.stem, readers.read_npz(path), f"file {path.name}", span)
    if path.suffix.lower() == ".npy":
        arrays = readers.read_npy(path, options.test_share)
        return _assemble(path.stem, arrays, f"file {path.name}", span)
    if path.is_dir():
        title = path.resolve().name
        if (path / "train_images.npy").exists():
            return _assemble(title, readers.read_npy_folder(path), f".npy files in {title}", span)
        if image_folders.holds_images(path):
            return _load_images(path, title, data_dir, options, progress)
        return _assemble(title, readers.read_idx_folder(path), f"IDX files in {title}", span)
    if path.exists():
        raise InputError(f"dataset: received {one_line(path)}, {readers.not_read(path)}")
    if name.startswith((".", "~", os.sep)) or path.suffix.lower() in readers.NOT_READ:
        raise InputError(
            f"dataset: received {one_line(name)}, which does not exist; expected an .npz file, a folder or a set's name"
        )
    return None


def _load_images(path: Path, title: str, data_dir: Path, options: DataConfig, progress: bool) -> Dataset:
    """A folder of image files, from its cache file, which is made first where there is none for these very files."""
    if options.value_range is not None:
        raise InputError(
            "value_range: received one for a folder of image files, whose values say themselves; leave it out"
        )
    splits = image_folders.splits_of(path, options.test_share)
    cache = data_dir / f"{title}-{image_folders.signature(path, splits, options.image_size, options.fit)}.npz"
    if cache.exists():
        return _read_cache(title, cache)
    arrays = image_folders.read(path, splits, options.image_size, options.fit, progress)
    dataset = _assemble(title, arrays, f"image files in {title}")
    with in_turn(data_dir):
        _write_cache(cache, dataset)
    return dataset


def _load_tfds(name: str, folder: Path, manual_dir: str | None, progress: bool) -> Dataset:
    """A TensorFlow Datasets set, from its cache file, which is made first where there is none."""
    cache = cache_path(name, folder)
    if cache.exists():
        return _read_cache(name, cache)
    readers.require_tfds(name, folder, manual_dir)  # before anything is written
    with in_turn(folder):
        if cache.exists():  # another process has made it meanwhile
            return _read_cache(name, cache)
        arrays = readers.read_tfds(name, folder, manual_dir, progress)
        source = f"TensorFlow Datasets {arrays.pop('full_name')}"
        dataset = _assemble(name, arrays, source)  # checked before it is kept
        _write_cache(cache, dataset)
        return dataset


def cache_path(name: str, data_dir: str | os.PathLike[str]) -> Path:
    """The decoded file of a TensorFlow Datasets name."""
    return Path(data_dir) / (name.replace("/", "-").replace(":", "-") + ".npz")


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


def training_images(dataset: Dataset, mode: str) -> np.ndarray:
    """The training split as it goes to the device, uint8: grey where each step binarizes anew."""
    return binarize(dataset.train.images, "none" if mode == "dynamic" else mode, "train")


def evaluation_images(dataset: Dataset, mode: str, split: str | None = None) -> tuple[str, np.ndarray]:
    """A split's name and its images as an evaluation sees them: binarized, where the experiment is.

    The default is the split that is evaluated after every epoch: validation where there is one, else
    test.
    """
    split = split or ("test" if dataset.validation is None else "validation")
    if not (isinstance(split, str) and split in dataset.splits):
        raise InputError(f"split: received {shown(split)}, expected one of {', '.join(dataset.splits)}")
    images = dataset.splits[split].images
    return split, binarize(images, "static" if mode == "dynamic" else mode, split)


@dataclass(frozen=True)
class Seen:
    """A split as an experiment's model sees it where it is evaluated."""

    split: str
    images: np.ndarray
    """uint8, or float32 in [0, 1], (N, height, width, channels): binarized, where the experiment is."""
    labels: np.ndarray | None
    """(N,), where the model is given classes."""


def seen_by(config: Config, dataset: Dataset, split: str | None = None) -> Seen:
    """A split as the config's model sees it; the default is that of `evaluation_images`."""
    name, images = evaluation_images(dataset, config.data.binarization, split)
    return Seen(name, images, labels_for(dataset.splits[name], config))


def labels_for(split: Split, config: Config) -> np.ndarray | None:
    """A split's labels where the config's model is given classes, else None."""
    return split.labels if config.network.classes else None


def _assemble(
    name: str, arrays: Mapping[str, Any], source: str, value_range: tuple[float, float] | None = None
) -> Dataset:
    there = [split for split in SPLITS if f"{split}_images" in arrays]
    splits = {s: _split(name, s, arrays[f"{s}_images"], arrays.get(f"{s}_labels"), value_range) for s in there}
    train, test = splits["train"], splits["test"]
    for split, held in splits.items():
        kinds = [f"{of.images.dtype} {of.images.shape[1:]}" for of in (train, held)]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"dataset {name}: training images are {kinds[0]}, {split} images {kinds[1]}; "
                "expected one shape and type"
            )
    names = _class_names(arrays.get("class_names", ()))
    highest = int(max(of.labels.max() for of in splits.values()))
    if names and highest >= len(names):
        raise InputError(f"dataset {name}: received labels up to {highest}, expected less than {len(names)}")
    names = names or tuple(str(label) for label in range(highest + 1))
    return Dataset(name, train, test, names, source, splits.get("validation"))


def _class_names(given: Any) -> tuple[str, ...]:
    """Names as text; bytes are read as UTF-8, or else as Latin-1, which any bytes are."""
    names = []
    for name in np.atleast_1d(np.asarray(given)).tolist():
        try:
            names.append(name.decode() if isinstance(name, bytes) else str(name))
        except UnicodeDecodeError:
            names.append(name.decode("latin-1"))
    return tuple(names)


def _split(name: str, split: str, images: Any, labels: Any, value_range: tuple[float, float] | None = None) -> Split:
    where = f"dataset {name}, {split} split"
    images = np.asarray(images)
    labels = np.full(len(images) if images.ndim else 0, -1) if labels is None else np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if images.ndim == 3:
        images = images[..., None]
    kind = images.dtype
    if images.ndim != 4 or not (kind in (np.bool_, np.uint8, np.uint16) or np.issubdtype(kind, np.floating)):
        raise InputError(
            f"{where}: received {kind} of shape {images.shape}, not images; "
            "expected uint8, uint16, bool or floats (N, height, width[, channels])"
        )
    if not images.size:
        raise InputError(f"{where}: received no images, expected at least one")
    if images.shape[1] in CHANNELS and images.shape[3] not in CHANNELS:
        raise InputError(
            f"{where}: received shape {images.shape}, whose channels seem to come first; "
            "expected (N, height, width, channels): np.moveaxis(images, 1, -1)"
        )
    images = as_pixels(images, value_range, where)
    require_scaled(images, where)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{where}: received labels {labels.dtype} {labels.shape} for {len(images)} images, "
            "expected one integer per image, or no labels at all"
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
    if dataset.validation is not None:
        arrays |= {"validation_images": dataset.validation.images, "validation_labels": dataset.validation.labels}
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def _read_cache(name: str, path: Path) -> Dataset:
    mend = f"delete {path} and load {name} again"
    try:
        readers.require_file(path)
        with np.load(path, allow_pickle=False) as file:
            version = int(file["cache_version"])
            if version != CACHE_VERSION:
                raise InputError(f"dataset {name}: its cache is version {version}, expected {CACHE_VERSION}; {mend}")
            arrays = {key: file[key] for key in file.files}
        source = str(arrays["source"])
        missing = {f"{split}_{kind}" for split in ("train", "test") for kind in ("images", "labels")} - set(arrays)
    except InputError:
        raise
    except (*readers.UNREADABLE, KeyError) as error:
        raise InputError(f"dataset {name}: its cache file is damaged ({one_line(error, 120)}); {mend}") from error
    if missing:
        raise InputError(f"dataset {name}: its cache file lacks {', '.join(sorted(missing))}; {mend}")
    return _assemble(name, arrays, source)
