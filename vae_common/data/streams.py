"""Sets that no memory holds: images that are read where they are needed, a chunk of steps ahead. On Grain.

The order of an epoch is that of counters (see counters.py): no table of it is kept, any chunk is read without those
before it, and every process and either half gets the same.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from vae_common import counters, randomness
from vae_common.config import Config
from vae_common.errors import InputError, one_line

CHUNK = 64 << 20
"""Bytes of images that are handed to the device at a time, if a step takes no more."""
AHEAD = 2
"""Chunks that are read before they are asked for."""
DRAWN = 4096
"""Images that stand for all of a stream: in its fingerprint, and where a mean of them is wanted."""


class Mapped:
    """Images of an .npy file, uint8 (N, height, width, channels), of which what is asked for is read."""

    def __init__(self, path: Path):
        self.path = path
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        self._array = array[..., None] if array.ndim == 3 else array
        if self._array.dtype != np.uint8 or self._array.ndim != 4:
            received = f"{self._array.dtype} {array.shape}"
            raise InputError(
                f"dataset: {one_line(path, 200)} holds {received}, expected uint8 (N, height, width[, channels])"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all images."""
        shape: tuple[int, ...] = self._array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Those images, in that order, read in the file's."""
        if isinstance(rows, slice):
            return np.array(self._array[rows])
        rows = np.asarray(rows)
        order = np.argsort(rows, kind="stable")
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        found[order] = self._array[rows[order]]
        return found

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise InputError(f"dataset: {one_line(self.path, 200)} is a stream, which is not read at once; take some rows")

    def __reduce__(self) -> tuple[Any, ...]:
        return Mapped, (self.path,)

    def drawn(self) -> np.ndarray:
        """A fixed draw of images from all over it."""
        return self[np.sort(randomness.some_rows(len(self), DRAWN))]

    def identity(self) -> str:
        """What names these images: their number, shape, size on the disk, and the fixed draw of them."""
        digest = hashlib.sha256(f"{self.shape} {self.path.stat().st_size}".encode())
        digest.update(self.drawn().data)
        return digest.hexdigest()


class Chunk(NamedTuple):
    """Some steps of an epoch."""

    first: int
    """The first step's number."""
    images: np.ndarray
    """uint8, (steps * batch, height, width, channels), in the order of the steps."""
    labels: np.ndarray
    """int64, (steps * batch,)."""


def require_streamable(config: Config) -> None:
    """Raises InputError where an experiment asks for what only images in memory give."""
    if importlib.util.find_spec("grain") is None:
        raise InputError("stream: grain is not installed: pip install '.[stream]'")
    if config.training.randomness != "counter":
        received = config.training.randomness
        raise InputError(f"randomness: received {received} with a stream, expected counter: no epoch is drawn at once")
    if config.data.binarization == "static":
        raise InputError("binarization: received static with a stream, expected none, threshold or dynamic")
    if config.training.execution == "graph":
        raise InputError("execution: received graph with a stream, expected eager or auto")


def chunks(images: Mapped, labels: np.ndarray, config: Config, epoch: int) -> Iterator[Chunk]:
    """An epoch's images, some steps at a time, read ahead by Grain's threads."""
    import grain

    source = _Chunks(images, labels, config, epoch)
    ahead = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
    yield from grain.MapDataset.source(source).to_iter_dataset(ahead)


class _Chunks:
    """An epoch's chunks by their place, as Grain takes a source."""

    def __init__(self, images: Mapped, labels: np.ndarray, config: Config, epoch: int):
        self.images, self.labels, self.batch = images, labels, config.training.batch_size
        self.steps = randomness.steps_per_epoch(len(images), self.batch)
        self.key = randomness.key_words(config.seed, "order", epoch)
        self.at_once = max(1, CHUNK // (self.batch * math.prod(images.shape[1:])))
        self.threshold = config.data.binarization == "threshold"

    def __len__(self) -> int:
        return math.ceil(self.steps / self.at_once)

    def __getitem__(self, place: Any) -> Chunk:
        first = int(place) * self.at_once
        steps = min(self.at_once, self.steps - first)
        places = np.arange(first * self.batch, (first + steps) * self.batch)
        rows = counters.permuted(self.key, places, len(self.images))
        images = self.images[rows]
        if self.threshold:
            images = np.where(images > 127, np.uint8(255), np.uint8(0))
        return Chunk(first, images, self.labels[rows])
