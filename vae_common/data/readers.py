"""Readers of the loader: each gives a dict of train_images, train_labels, test_images, test_labels.

TensorFlow Datasets is imported only when a set has to be prepared.
"""

from __future__ import annotations

import contextlib
import difflib
import gzip
import importlib.util
import logging
import lzma
import math
import os
import socket
import struct
import sys
import tempfile
import tokenize
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from vae_common import randomness
from vae_common.data import memory, streams
from vae_common.errors import InputError, one_line, require, shown
from vae_common.files import in_turn, require_regular
from vae_common.progress import counted

NAMES = {
    "train_images": ("train_images", "x_train"),
    "train_labels": ("train_labels", "y_train"),
    "test_images": ("test_images", "x_test"),
    "test_labels": ("test_labels", "y_test"),
    "validation_images": ("validation_images", "val_images", "x_validation", "x_val"),
    "validation_labels": ("validation_labels", "val_labels", "y_validation", "y_val"),
    "class_names": ("class_names",),
}
"""What the loader takes, and under which names files have it: this project's, Keras's, MedMNIST's."""
NEEDED = ("train_images", "test_images")
_HELD_OUT_DIGITS = 297
AT_ONCE = 10_000
"""Records that labels are read from at once."""
DECODED = 2**24
"""Bytes of images that are decoded at once."""
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, TypeError, AttributeError, KeyError,
    NotImplementedError, RuntimeError, SyntaxError, tokenize.TokenError, OverflowError, MemoryError,
)  # fmt: skip
"""What NumPy and zipfile raise on a damaged .npz file."""
NOT_READ = {
    ".pkl": "a pickle, which runs code when it is read; write an .npz: np.savez(path, train_images=..., ...)",
    ".pickle": "a pickle, which runs code when it is read; write an .npz: np.savez(path, train_images=..., ...)",
    ".pt": "a pickle, which runs code when it is read; write an .npz: np.savez(path, train_images=..., ...)",
    ".h5": "HDF5; read it with h5py and write an .npz: np.savez(path, train_images=..., ...)",
    ".hdf5": "HDF5; read it with h5py and write an .npz: np.savez(path, train_images=..., ...)",
    ".mat": "MATLAB's; read it with scipy.io.loadmat and write an .npz: np.savez(path, train_images=..., ...)",
    ".gz": "compressed; unpack it first (gunzip)",
    ".zip": "an archive; unpack it first",
    ".tar": "an archive; unpack it first",
}
"""Endings of files that hold images elsewhere, and what to do with them."""
IDX_IMAGES, IDX_LABELS = (0x803, 0x804), (0x801,)
"""Unsigned bytes of three dimensions (grey) or four (colour), of one dimension."""


def not_read(path: Path) -> str:
    """Why a file that exists is not taken."""
    said = NOT_READ.get(path.suffix.lower(), "a kind of file that is not read; write an .npz with np.savez")
    return f"which exists and is {said}"


def require_file(path: Path) -> None:
    """Raises InputError for what is no regular file: a pipe would be waited for without end."""
    require_regular(path, "dataset")


def read_digits() -> dict[str, Any]:
    """scikit-learn's 1,797 handwritten digits (8x8, 16 greys), bilinearly resized to 28x28.

    1,500 for training and 297 for testing, by a fixed draw.
    """
    from scipy import ndimage

    table = _digits()
    digits, labels = table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(np.int64)
    grown = ndimage.zoom(digits, (1, 3.5, 3.5), order=1, mode="nearest", grid_mode=True)
    images = np.rint(grown.clip(0, 16) * (255 / 16)).astype(np.uint8)[..., None]
    order = randomness.split_order(len(images))
    train, test = order[_HELD_OUT_DIGITS:], order[:_HELD_OUT_DIGITS]
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def _digits() -> np.ndarray:
    """The rows of scikit-learn's file, (1797, 65): 64 pixels and a label. Its package takes a second to import."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise InputError("dataset: digits come with scikit-learn, which is not installed: pip install scikit-learn")
    with gzip.open(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as rows:
        return np.loadtxt(rows, delimiter=",")


PATCH = 32
"""Pixels to a side of photos' patches, unless another number is asked for."""


def read_photos(size: int) -> dict[str, Any]:
    """Colour patches of scikit-learn's two sample photographs (a temple, a flower), uint8 (N, size, size, 3).

    Training patches, eight pixels apart, lie left of four fifths of a photograph's width, test patches, half a patch
    apart, right of it, so no pixel is in both. The label is the photograph. InputError where no patch fits.
    """
    from sklearn.datasets import load_sample_images

    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    photographs = load_sample_images().images
    most = min(photograph.shape[1] - photograph.shape[1] * 4 // 5 for photograph in photographs)
    require(8 <= size <= most, "image_size", size, f"8 to {most} for photos: what fits into their right fifth")
    for photograph in photographs:
        middle = photograph.shape[1] * 4 // 5
        sides = {"train": (photograph[:, :middle], 8), "test": (photograph[:, middle:], size // 2)}
        for split, (side, stride) in sides.items():
            windows = np.lib.stride_tricks.sliding_window_view(side, (size, size), (0, 1))[::stride, ::stride]
            parts[split].append(windows.transpose(0, 1, 3, 4, 2).reshape(-1, size, size, 3))
    found: dict[str, Any] = {"class_names": ("temple", "flower")}
    for split, patches in parts.items():
        found[f"{split}_images"] = np.concatenate(patches)
        found[f"{split}_labels"] = np.repeat(np.arange(len(patches)), [len(of) for of in patches])
    return found


def read_npz(path: Path) -> dict[str, Any]:
    """An .npz file with train_images, test_images (or x_train, ...), and labels where it has any; no other key is read.

    What it says of its arrays' size is held against the memory before they are read.
    """
    try:
        require_file(path)
        with np.load(path, allow_pickle=False) as file:
            keys = sorted(file.files)
            names = {key: next(name for name in of if name in keys) for key, of in NAMES.items() if {*of} & {*keys}}
            if not names.keys() >= {*NEEDED}:
                raise InputError(
                    f"dataset: {one_line(path, 200)} holds {shown(keys)}, expected train_images, test_images and, "
                    "where there are any, train_labels, test_labels, val_images, val_labels"
                )
            _require_sizes(path, list(names.values()))
            return {key: file[name] for key, name in names.items()}
    except InputError:
        raise
    except FileNotFoundError:
        said = f"dataset: received {one_line(path, 200)}, which does not exist"
        raise InputError(f"{said}; expected an .npz file") from None
    except UNREADABLE as error:
        said = f"dataset: {one_line(path, 200)} cannot be read as .npz ({one_line(error, 120)})"
        raise InputError(f"{said}; write it again: np.savez(path, train_images=..., ...)") from error


def read_npy(path: Path, test_share: float) -> dict[str, Any]:
    """One .npy file of images, and `<its name>_labels.npy` beside it where there are labels; a fixed draw of that share
    becomes the test split."""
    images, beside = _npy(path), path.with_name(f"{path.stem}_labels.npy")
    labels = _npy(beside) if beside.exists() else None
    count = len(images) if images.ndim else 0
    if count < 2:
        raise InputError(
            f"dataset: {one_line(path, 200)} holds {images.dtype} {images.shape}, expected images to split"
        )
    if labels is not None and len(np.atleast_1d(labels)) != count:
        raise InputError(f"dataset: {one_line(beside, 200)} holds {labels.shape}, expected a label for each of {count}")
    order, held = randomness.split_order(count), max(1, min(count - 1, round(count * test_share)))
    parts = {"train": np.sort(order[held:]), "test": np.sort(order[:held])}
    found = {f"{split}_images": images[rows] for split, rows in parts.items()}
    return found | ({} if labels is None else {f"{split}_labels": labels[rows] for split, rows in parts.items()})


def read_npy_folder(folder: Path, stream: bool = False) -> dict[str, Any]:
    """A folder with an .npy file for each array that an .npz has, under the same names; of a stream images stay on the
    disk."""
    found: dict[str, Any] = {}
    for key, names in NAMES.items():
        path = next((folder / f"{name}.npy" for name in names if (folder / f"{name}.npy").exists()), None)
        if path is not None:
            found[key] = (_streamed if stream and key.endswith("_images") else _npy)(path)
    if not found.keys() >= {*NEEDED}:
        raise InputError(f"dataset: {one_line(folder, 200)} holds {sorted(found)}, expected {', '.join(NEEDED)}")
    return found


def _npy(path: Path) -> np.ndarray:
    """An .npy file's array, held against the memory before it is read."""
    with _reading(path):
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if mapped.nbytes > memory.available():
            raise InputError(f"dataset: {one_line(path, 200)} holds {mapped.nbytes} bytes, more memory than is free")
        return np.array(mapped)


def _streamed(path: Path) -> streams.Rows:
    with _reading(path):
        return streams.Rows(path)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says in one line what is wrong with an .npy file."""
    try:
        require_file(path)
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"dataset: received {one_line(path, 200)}, which does not exist; expected a file") from None
    except UNREADABLE as error:
        said = f"dataset: {one_line(path, 200)} cannot be read as .npy ({one_line(error, 120)})"
        raise InputError(f"{said}; write it again: np.save") from error


def _require_sizes(path: Path, names: list[str]) -> None:
    """Raises InputError where arrays say that they are larger than the file or the memory."""
    total, free = 0, memory.available()
    with zipfile.ZipFile(path) as archive:
        for name in names:
            member = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if dtype.hasobject:
                raise ValueError(f"{name} holds Python objects, which are pickles")
            size = math.prod(shape) * dtype.itemsize
            if size > archive.getinfo(member).file_size:
                raise ValueError(f"{name} says that it has {size} bytes, and the file holds fewer")
            total += size
    if total > free:
        raise InputError(
            f"dataset: {one_line(path, 200)} holds {total} bytes of images and labels, and {free} bytes of memory are "
            "free; expected a smaller set"
        )


def read_idx_folder(folder: Path) -> dict[str, Any]:
    """A folder with MNIST's four file names, with a hyphen or a dot before `idx`, gzipped or not; grey or colour."""
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        arrays[f"{split}_images"] = _read_idx(folder, f"{prefix}-images", IDX_IMAGES)
        arrays[f"{split}_labels"] = _read_idx(folder, f"{prefix}-labels", IDX_LABELS)
    return arrays


def _read_idx(folder: Path, stem: str, magics: tuple[int, ...]) -> np.ndarray:
    names = [f"{stem}{dot}idx{magic & 0xFF}-ubyte" for magic in magics for dot in "-."]
    path = next((folder / f for name in names for f in (name, f"{name}.gz") if (folder / f).exists()), None)
    if path is None:
        raise InputError(
            f"dataset: {one_line(folder, 200)} has no file {names[0]}[.gz]; expected MNIST's four IDX files"
        )
    try:
        require_file(path)
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"dataset: {path} is damaged ({error}); copy it again") from error
    magic = int.from_bytes(data[:4], "big")
    dimensions = magic & 0xFF
    header = 4 + 4 * dimensions
    if magic not in magics or len(data) < header:
        expected = " or ".join(f"{number:08x}" for number in magics)
        raise InputError(f"dataset: {path} starts with {data[:4].hex()}, expected the IDX number {expected}")
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if len(data) - header != math.prod(shape):
        raise InputError(
            f"dataset: {path} holds {len(data) - header} bytes, expected {math.prod(shape)} "
            f"for shape {shape}; copy it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def require_tfds(name: str, data_dir: Path, manual_dir: str | None) -> None:
    """Raises InputError where a TensorFlow Datasets set cannot be prepared; nothing is written."""
    with _quiet():
        tfds = _import_tfds(name, data_dir)
        if manual_dir is not None and not Path(manual_dir).is_dir():
            raise InputError(f"manual_dir: received {manual_dir}, expected a folder with {name}'s original files")
        builder = _builder(tfds, name, data_dir / "tfds")
        _require_images(builder, name)
        if not builder.is_prepared():
            _require_source(builder, name, manual_dir)


def read_tfds(name: str, data_dir: Path, manual_dir: str | None, progress: bool) -> dict[str, Any]:
    """Prepares a TensorFlow Datasets set (download, checksums, conversion) and decodes it.

    A set without a test split gets a fixed draw of a tenth of its training images as one. A set
    without a single integer label per image gets labels of -1.
    """
    with _quiet():
        tfds = _import_tfds(name, data_dir)
        if not (progress and sys.stderr.isatty()):
            tfds.disable_progress_bar()
        builder = _builder(tfds, name, data_dir / "tfds")
        _prepare(tfds, builder, name, manual_dir)
        return _decode(builder, name, progress)


def stream_tfds(name: str, data_dir: Path, manual_dir: str | None, progress: bool) -> dict[str, Any]:
    """Prepares a TensorFlow Datasets set as ArrayRecord and leaves its images there; its labels are read once."""
    with _quiet():
        tfds = _import_tfds(name, data_dir)
        if not (progress and sys.stderr.isatty()):
            tfds.disable_progress_bar()
        builder = _builder(tfds, name, data_dir / "tfds")
        with in_turn(data_dir):
            _prepare(tfds, builder, name, manual_dir)
        label, arrays = _described(builder)
        skip = {"image": tfds.decode.SkipDecoding()}
        for split in builder.info.splits:
            if split in ("train", "test"):
                source = builder.as_data_source(split=split)
                shape = source[0]["image"].shape
                arrays[f"{split}_images"] = streams.Records(source, f"{builder.info.full_name} {split}", shape)
                if label is not None:
                    plain = builder.as_data_source(split=split, decoders=skip)
                    what = f"reading labels of {name} {split}"
                    shown = _shown(_in_parts(plain, AT_ONCE), what, len(plain), progress)
                    arrays[f"{split}_labels"] = np.array([example[label] for example in shown], np.int64)
        return _with_test(arrays, name)


def _import_tfds(name: str, data_dir: Path) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"dataset: {name} is not in {data_dir} yet, and preparing it needs tensorflow-datasets ({error}); "
            "install it, or copy the cache file from a machine that has it"
        ) from error
    return tfds


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TensorFlow's own messages away: what they say of, this module says in one line.

    They come from Python's warnings and logging and, written by C++, straight to the process's standard error; Python's
    own standard error stays open for progress bars. Where something else goes wrong they are shown.
    """
    disabled = logging.root.manager.disable
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        stack.callback(logging.disable, disabled)
        kept = stack.enter_context(tempfile.TemporaryFile())
        original = os.dup(2)
        stack.callback(os.close, original)
        shown_stream = stack.enter_context(open(os.dup(original), "w", encoding="utf-8", errors="backslashreplace"))
        os.dup2(kept.fileno(), 2)
        stack.callback(os.dup2, original, 2)
        replaced = shown_stream if sys.stderr is sys.__stderr__ else sys.stderr
        stack.enter_context(contextlib.redirect_stderr(replaced))
        held = stack.enter_context(open(os.dup(kept.fileno()), "w", encoding="utf-8", buffering=1))
        stack.enter_context(contextlib.redirect_stdout(held))
        try:
            yield
        except Exception as error:
            if not isinstance(error, InputError):
                kept.seek(0)
                os.write(original, kept.read())
            raise


def _builder(tfds: Any, name: str, folder: Path) -> Any:
    try:
        return tfds.builder(name, data_dir=folder, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        near = difflib.get_close_matches(name.split("/", maxsplit=1)[0], known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see tfds.list_builders() for the names"
        said = f"dataset: received {shown(name)}, which TensorFlow Datasets does not have"
        raise InputError(f"{said}; {hint}") from None
    except (ValueError, AssertionError, TypeError, KeyError) as error:  # an unknown config or version of a known set
        raise InputError(f"dataset: received {shown(name)}: {_first_line(error)}") from error
    except ImportError as error:  # another community's sets
        raise InputError(f"dataset: {name} needs the package {error.name}; install it or choose another set") from error


def _require_images(builder: Any, name: str) -> None:
    if "image" not in (builder.info.features or {}):
        raise InputError(f"dataset: {name} holds {list(builder.info.features or {})}, not images; choose an image set")
    kind = builder.info.features["image"].np_dtype  # `dtype` turns into TensorFlow's once that is loaded
    if kind != np.uint8:
        raise InputError(f"dataset: {name} holds images of {kind}, expected uint8; choose another set or write an .npz")


def _prepare(tfds: Any, builder: Any, name: str, manual_dir: str | None) -> None:
    if builder.is_prepared():
        return
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


def _require_source(builder: Any, name: str, manual_dir: str | None) -> None:
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
    label, arrays = _described(builder)
    for split in ("train", "test"):
        if split not in builder.info.splits:
            continue
        source, what = builder.as_data_source(split=split), f"decoding {name} {split}"
        at_once = max(1, DECODED // source[0]["image"].nbytes) if len(source) else 1
        images: np.ndarray | None = None
        labels = np.full(len(source), -1, np.int64)
        for i, example in enumerate(_shown(_in_parts(source, at_once), what, len(source), progress)):
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
    return _with_test(arrays, name)


def _described(builder: Any) -> tuple[str | None, dict[str, Any]]:
    """The feature that is one integer label per image, if there is one; and what the set says of itself."""
    features = builder.info.features
    feature = features["label"] if "label" in features else None
    whole = feature is not None and feature.shape == () and np.issubdtype(feature.np_dtype, np.integer)
    names = getattr(feature, "names", None) or () if whole else ()
    return "label" if whole else None, {"full_name": builder.info.full_name, "class_names": names}


def _with_test(arrays: dict[str, Any], name: str) -> dict[str, Any]:
    """The arrays, with a fixed draw of a tenth of the training images as test split where there is none."""
    if "train_images" not in arrays:
        raise InputError(f"dataset: {name} has no split called train, expected one")
    if "test_images" not in arrays:
        order = randomness.split_order(len(arrays["train_images"]))
        held = max(1, len(order) // 10)
        for key in [key for key in arrays if key.startswith("train_")]:
            whole, rows = arrays[key], {"train": order[held:], "test": order[:held]}
            for split, of in rows.items():
                taken = streams.Taken(whole, of) if isinstance(whole, streams.Stream) else whole[of]
                arrays[key.replace("train", split)] = taken
    return arrays


def _in_parts(source: Any, at_once: int) -> Iterator[Any]:
    """Every example, many read at once: one by one takes several times as long."""
    for first in range(0, len(source), at_once):
        yield from source.__getitems__(list(range(first, min(first + at_once, len(source)))))


def _shown(examples: Iterable[Any], what: str, count: int, progress: bool) -> Iterable[Any]:
    return counted(examples, what, count, "image") if progress else examples


def _first_line(error: BaseException) -> str:
    """TensorFlow Datasets puts what it was called with before what went wrong; only the latter is kept."""
    lines = [line.strip() for line in str(error).rpartition('}": ')[2].splitlines() if line.strip()]
    return one_line(lines[0], 300) if lines else type(error).__name__
