"""Readers of the loader: each gives a dict of train_images, train_labels, test_images, test_labels.

TensorFlow Datasets is imported only when a set has to be prepared.
"""

from __future__ import annotations

import contextlib
import difflib
import gzip
import math
import os
import socket
import struct
import sys
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from vae_common import randomness
from vae_common.configs import InputError

_NPZ_ALIASES = {
    "train_images": "x_train",
    "train_labels": "y_train",
    "test_images": "x_test",
    "test_labels": "y_test",
}
_HELD_OUT_DIGITS = 297
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, TypeError, AttributeError, NotImplementedError,
    RuntimeError,
)  # fmt: skip
"""What NumPy and zipfile raise on a damaged .npz file."""
_IDX_IMAGES, _IDX_LABELS = 0x803, 0x801


def read_digits() -> dict[str, Any]:
    """scikit-learn's 1,797 handwritten digits (8x8, 16 greys), bilinearly resized to 28x28.

    1,500 for training and 297 for testing, by a fixed draw.
    """
    from scipy import ndimage
    from sklearn.datasets import load_digits

    digits = load_digits()
    grown = ndimage.zoom(digits.images, (1, 3.5, 3.5), order=1, mode="nearest", grid_mode=True)
    images = np.rint(grown.clip(0, 16) * (255 / 16)).astype(np.uint8)[..., None]
    order = randomness.split_order(len(images))
    train, test = order[_HELD_OUT_DIGITS:], order[:_HELD_OUT_DIGITS]
    return {
        "train_images": images[train],
        "train_labels": digits.target[train],
        "test_images": images[test],
        "test_labels": digits.target[test],
    }


def read_photos(size: int = 32) -> dict[str, Any]:
    """Colour patches of scikit-learn's two sample photographs (a temple, a flower), uint8 (N, size, size, 3).

    Training patches overlap and lie left of four fifths of a photograph's width, test patches right of it, so no pixel
    is in both. The label is the photograph.
    """
    from sklearn.datasets import load_sample_images

    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    photographs = load_sample_images().images
    for photograph in photographs:
        middle = photograph.shape[1] * 4 // 5
        sides = {"train": (photograph[:, :middle], size // 4), "test": (photograph[:, middle:], size // 2)}
        for split, (side, stride) in sides.items():
            windows = np.lib.stride_tricks.sliding_window_view(side, (size, size), (0, 1))[::stride, ::stride]
            parts[split].append(windows.transpose(0, 1, 3, 4, 2).reshape(-1, size, size, 3))
    found: dict[str, Any] = {"class_names": ("temple", "flower")}
    for split, patches in parts.items():
        found[f"{split}_images"] = np.concatenate(patches)
        found[f"{split}_labels"] = np.repeat(np.arange(len(patches)), [len(of) for of in patches])
    return found


def read_npz(path: Path) -> dict[str, Any]:
    """An .npz file with train_images, train_labels, test_images, test_labels (or x_train, ...)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise InputError(f"dataset: received {path}, which does not exist; expected an .npz file") from None
    except UNREADABLE as error:
        raise InputError(f"dataset: {path} cannot be read as .npz ({error}); write it again") from error
    names = {key: key if key in held else alias for key, alias in _NPZ_ALIASES.items()}
    missing = [key for key, name in names.items() if name not in held]
    if missing:
        raise InputError(f"dataset: {path} holds {sorted(held)}, expected {', '.join(_NPZ_ALIASES)}")
    return {key: held[name] for key, name in names.items()} | {"class_names": held.get("class_names", ())}


def read_idx_folder(folder: Path) -> dict[str, Any]:
    """A folder with MNIST's four file names, gzipped or not."""
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        arrays[f"{split}_images"] = _read_idx(folder, f"{prefix}-images-idx3-ubyte", _IDX_IMAGES)
        arrays[f"{split}_labels"] = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", _IDX_LABELS)
    return arrays


def _read_idx(folder: Path, name: str, magic: int) -> np.ndarray:
    path = next((folder / f for f in (name, f"{name}.gz") if (folder / f).exists()), None)
    if path is None:
        raise InputError(f"dataset: {folder} has no file {name}[.gz]; expected MNIST's four IDX files")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"dataset: {path} is damaged ({error}); copy it again") from error
    dimensions = magic & 0xFF
    header = 4 + 4 * dimensions
    if len(data) < header or int.from_bytes(data[:4], "big") != magic:
        raise InputError(f"dataset: {path} starts with {data[:4].hex()}, expected the IDX number {magic:08x}")
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if len(data) - header != math.prod(shape):
        raise InputError(
            f"dataset: {path} holds {len(data) - header} bytes, expected {math.prod(shape)} "
            f"for shape {shape}; copy it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_tfds(name: str, data_dir: Path, manual_dir: str | Path | None, progress: bool) -> dict[str, Any]:
    """Prepares a TensorFlow Datasets set (download, checksums, conversion) and decodes it.

    A set without a test split gets a fixed draw of a tenth of its training images as one. A set
    without a single integer label per image gets labels of -1.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"dataset: {name} is not in {data_dir} yet, and preparing it needs tensorflow-datasets ({error}); "
            "install it, or copy the cache file from a machine that has it"
        ) from error
    if manual_dir is not None and not Path(manual_dir).is_dir():
        raise InputError(f"manual_dir: received {manual_dir}, expected a folder with {name}'s original files")
    if not (progress and sys.stderr.isatty()):
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(sys.stderr):
        builder = _builder(tfds, name, data_dir / "tfds")
        _prepare(tfds, builder, name, manual_dir)
        return _decode(builder, name, progress)


def _builder(tfds: Any, name: str, folder: Path) -> Any:
    try:
        return tfds.builder(name, data_dir=folder, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        near = difflib.get_close_matches(name.split("/", maxsplit=1)[0], known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see tfds.list_builders() for the names"
        raise InputError(f"dataset: received {name}, which TensorFlow Datasets does not have; {hint}") from None
    except (ValueError, AssertionError) as error:  # an unknown config or version of a known set
        raise InputError(f"dataset: received {name}: {_first_line(error)}") from error
    except ImportError as error:  # another community's sets
        raise InputError(f"dataset: {name} needs the package {error.name}; install it or choose another set") from error


def _prepare(tfds: Any, builder: Any, name: str, manual_dir: str | Path | None) -> None:
    if "image" not in (builder.info.features or {}):
        raise InputError(f"dataset: {name} holds {list(builder.info.features or {})}, not images; choose an image set")
    kind = builder.info.features["image"].np_dtype  # `dtype` turns into TensorFlow's once that is loaded
    if kind != np.uint8:
        raise InputError(f"dataset: {name} holds images of {kind}, expected uint8; choose another set or write an .npz")
    if builder.is_prepared():
        return
    _require_source(builder, name, manual_dir)
    config = tfds.download.DownloadConfig(manual_dir=None if manual_dir is None else str(manual_dir))
    try:
        builder.download_and_prepare(download_config=config)
    except ImportError as error:
        raise InputError(
            f"dataset: preparing {name} needs {error.name or 'TensorFlow'} ({_first_line(error)}); "
            "install it (TensorFlow: pip install tensorflow-cpu), or copy the cache file from a machine that has it"
        ) from error
    except tfds.download.download_manager.NonMatchingChecksumError as error:
        raise InputError(
            f"dataset: a file of {name} does not match its checksum ({_first_line(error)}); fetch it again"
        ) from error
    except (OSError, AssertionError, tfds.download.DownloadError) as error:
        raise InputError(f"dataset: {name} could not be prepared: {_first_line(error)}") from error


def _require_source(builder: Any, name: str, manual_dir: str | Path | None) -> None:
    """Fails at once where no download can work, instead of after minutes of retries."""
    if any(scheme in urllib.request.getproxies() for scheme in ("http", "https")):
        return
    here = {path.name for path in Path(manual_dir).iterdir()} if manual_dir is not None else set()
    urls = [url for url, known in builder.url_infos.items() if known.filename not in here]
    hosts = sorted({host for url in urls if (host := urlparse(url).hostname)})
    for host in hosts:
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            raise InputError(
                f"dataset: {name} has to be downloaded and {host} cannot be reached; connect to a network, "
                "or put the original files into a folder and pass it as manual_dir"
            ) from None


def _decode(builder: Any, name: str, progress: bool) -> dict[str, Any]:
    from tqdm import tqdm

    features = builder.info.features
    feature = features["label"] if "label" in features else None
    whole = feature is not None and feature.shape == () and np.issubdtype(feature.np_dtype, np.integer)
    label = "label" if whole else None
    arrays: dict[str, Any] = {
        "full_name": builder.info.full_name,
        "class_names": getattr(feature, "names", None) or () if label else (),
    }
    for split in ("train", "test"):
        if split not in builder.info.splits:
            continue
        source = builder.as_data_source(split=split)
        images: np.ndarray | None = None
        labels = np.full(len(source), -1, np.int64)
        for i, example in enumerate(tqdm(source, f"decoding {name} {split}", disable=None if progress else True)):
            if images is None:
                images = np.empty((len(source), *example["image"].shape), np.uint8)
            if example["image"].shape != images.shape[1:]:
                raise InputError(
                    f"dataset: {name} holds images of {images.shape[1:]} and of {example['image'].shape}, "
                    "expected one size; choose another set or write an .npz"
                )
            images[i] = example["image"]
            if label is not None:
                labels[i] = example[label]
        arrays[f"{split}_images"] = np.empty((0, 0, 0, 0), np.uint8) if images is None else images
        arrays[f"{split}_labels"] = labels
    if "train_images" not in arrays:
        raise InputError(f"dataset: {name} has splits {list(builder.info.splits)}, expected train")
    if "test_images" not in arrays:
        order = randomness.split_order(len(arrays["train_images"]))
        held = max(1, len(order) // 10)
        for kind in ("images", "labels"):
            whole = arrays[f"train_{kind}"]
            arrays[f"train_{kind}"], arrays[f"test_{kind}"] = whole[order[held:]], whole[order[:held]]
    return arrays


def _first_line(error: BaseException) -> str:
    """TensorFlow Datasets puts what it was called with before what went wrong; only the latter is kept."""
    lines = [line.strip() for line in str(error).rpartition('}": ')[2].splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
