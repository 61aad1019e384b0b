"""The shared loader: images as uint8, or float32 in [0, 1], (N, height, width, channels), labels as integers (N,).

    mnist = datasets.load("mnist")                                  # downloads and prepares once
    mnist = datasets.load("mnist", manual_dir="originals/")         # original files at hand
    mine = datasets.load("cells.npz")

What TensorFlow Datasets prepared is decoded once into one cache file per set, which later loads in a
fraction of a second with neither TensorFlow nor TensorFlow Datasets installed.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae_common.config import DataConfig
from vae_common.data import image_folders, readers
from vae_common.data.pixels import as_pixels, require_scaled
from vae_common.data.splits import SPLITS, Dataset, Split
from vae_common.data.streams import Files, Stream
from vae_common.errors import InputError, one_line, shown
from vae_common.files import in_turn, write_atomically

CACHE_VERSION = 1
MOST_CLASSES = 10_000
A_FEW = 64
"""Images of a stream that say whether it is brought to 0 to 255."""
CHANNELS = (1, 3, 4)


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
    stream: bool = False,
) -> Dataset:
    """Loads a set by name or path, preparing and caching it first where that is needed.

    Args:
        name: `digits` or `photos`, which are built in; a TensorFlow Datasets name (`mnist`, `emnist/letters`,
            `cifar10:3.0.2`); an `.npz` or `.npy` file; or a folder of image files, of `.npy` files or of IDX files.
        data_dir: where prepared and decoded sets are kept.
        manual_dir: a folder that already holds the set's original files, to work offline.
        progress: report what is being decoded on standard error.
        value_range: of 16-bit and float images, the values that are black and white; they become float32 in [0, 1].
        image_size: height and width that image files are brought to; 0 leaves them. Of photos' patches; 0 is 32.
        fit: `crop` or `pad`: how they are, where they are no squares.
        test_share: of the images that become the test split, where there is none.
        stream: leave images on the disk and read them where they are needed: a folder of .npy files or of image files,
            or a TensorFlow Datasets name.

    Raises:
        InputError: in one line, what is wrong and how to mend it.
    """
    name, folder = _path_text("dataset", name), Path(_path_text("data_dir", data_dir))
    originals = None if manual_dir is None else _path_text("manual_dir", manual_dir)
    options = DataConfig(value_range=value_range, image_size=image_size, fit=fit, test_share=test_share)  # type: ignore[arg-type]
    if not name and not stream:
        raise InputError("dataset: received an empty name, expected digits, photos, mnist, an .npz file or a folder")
    if name == "digits" and not stream:
        return _assemble(name, readers.read_digits(), "scikit-learn's digits, resized to 28x28")
    if name == "photos" and not stream:
        side = image_size or readers.PATCH
        title = f"{side}x{side} patches of scikit-learn's two sample photographs"
        return _assemble(name, readers.read_photos(side), title)
    try:
        if stream:
            return _stream(name, folder, originals, options, progress)
        return _load_path(name, folder, options, progress) or _load_tfds(name, folder, originals, progress)
    except OSError as error:  # a name that is too long for a path, a folder that may not be read
        said = f"dataset: received {shown(name)}: {error.strerror or error}"
        raise InputError(f"{said}; expected a name, an .npz file or a folder") from error


def load_for(data: DataConfig, progress: bool = False) -> Dataset:
    """The set that a config names, with its names of classes, its validation split held out."""
    dataset = load(
        data.dataset,
        data_dir=data.data_dir,
        manual_dir=data.manual_dir,
        progress=progress,
        value_range=data.value_range,
        image_size=data.image_size,
        fit=data.fit,
        test_share=data.test_share,
        stream=data.stream,
    )
    return dataset.named(data.class_names).hold_out(data.validation_size)


def _stream(name: str, data_dir: Path, manual_dir: str | None, options: DataConfig, progress: bool) -> Dataset:
    """A set whose images stay where they are."""
    path = Path(name).expanduser()
    title = path.resolve().name
    if (path / "train_images.npy").exists():
        arrays = readers.read_npy_folder(path, stream=True)
        return _assemble(title, arrays, f"a stream of .npy files in {title}", options.value_range)
    if path.is_dir() and image_folders.holds_images(path):
        _require_no_range(options)
        splits = image_folders.splits_of(path, options.test_share)
        kind, shape = image_folders.kind_of(splits, options.image_size, options.fit)
        if kind.sixteen_bits:
            raise InputError(f"stream: {one_line(path, 200)} holds 16-bit images, expected 8-bit ones")
        images = {f"{split}_images": Files(path, of.paths, kind, shape) for split, of in splits.items()}
        return _assemble(title, image_folders.labels_of(splits) | images, f"a stream of image files in {title}")
    if path.exists() or _is_path(name) or name in ("", "digits", "photos"):
        expected = "a folder that holds train_images.npy or image files, or a TensorFlow Datasets name"
        raise InputError(f"stream: received {one_line(name, 200)}, expected {expected}")
    readers.require_tfds(name, data_dir, manual_dir)
    arrays = readers.stream_tfds(name, data_dir, manual_dir, progress)
    return _assemble(name, arrays, f"a stream of TensorFlow Datasets {arrays.pop('full_name')}")


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
    if _is_path(name):
        raise InputError(
            f"dataset: received {one_line(name)}, which does not exist; expected an .npz file, a folder or a set's name"
        )
    return None


def _is_path(name: str) -> bool:
    """Whether a name is a path's, there or not, and no set's."""
    return name.startswith((".", "~", os.sep)) or Path(name).suffix.lower() in (*readers.NOT_READ, ".npz", ".npy")


def _require_no_range(options: DataConfig) -> None:
    if options.value_range is not None:
        raise InputError(
            "value_range: received one for a folder of image files, whose values say themselves; leave it out"
        )


def _load_images(path: Path, title: str, data_dir: Path, options: DataConfig, progress: bool) -> Dataset:
    """A folder of image files, from its cache file, which is made first where there is none for these very files."""
    _require_no_range(options)
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
    if isinstance(images, Stream):
        _images(
            where, images.drawn(A_FEW) if math.prod(images.shape) else np.empty(images.shape, np.uint8), value_range
        )
    else:
        images = _images(where, np.asarray(images), value_range)
    labels = np.full(len(images), -1) if labels is None else np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
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
    return Split(images, labels.astype(np.int64))


def _images(where: str, images: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """A split's images as they are kept, read-only; InputError where they are none."""
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
    images = np.ascontiguousarray(images).view()
    images.setflags(write=False)
    return images


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
