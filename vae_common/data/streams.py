"""Sets that no memory holds: images that are read where they are needed, a chunk of steps ahead. On Grain.

The order of an epoch is that of counters (see counters.py): no table of it is kept, any chunk is read without those
before it, and every process and either half gets the same.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from vae_common import counters, randomness
from vae_common.config import Config
from vae_common.data.decoding import Kind, decode, unreadable
from vae_common.data.image_folders import decode_all
from vae_common.errors import InputError, one_line, require

CHUNK = 64 << 20
"""Bytes of images that are handed to the device at a time, if a step takes no more."""
AHEAD = 2
"""Chunks that are read before they are asked for."""
READERS, FEW, AT_ONCE = 8, 32, 512
"""Threads that read a file's images, images that are not worth them, and those that the system is asked for at once."""
SMALL = 4096
"""Bytes of an image below which it takes longer to tell the system its place than to copy it there."""
ALIGNED = 64
"""Bytes that an array begins at a multiple of, so that JAX need not copy it on a CPU."""
DRAWN = 4096
"""Images that stand for all of a stream: in its fingerprint, and where a mean of them is wanted."""
SHOWN, SHOWN_BYTES = 10_000, 128 << 20
"""Images that figures and latent metrics are made of, at most, and their bytes."""


class Stream(ABC):
    """Images that stay on the disk, uint8 (N, height, width, channels): what is asked for is read."""

    where: str
    """What messages call it."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of all images."""

    @abstractmethod
    def read(self, rows: np.ndarray, found: np.ndarray, places: np.ndarray) -> None:
        """Puts the images of these rows, in ascending order, at these places of an array in C order, one each."""

    @abstractmethod
    def identity(self) -> str:
        """What names these images where they lie, without reading them."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype(np.uint8)

    @property
    def image_bytes(self) -> int:
        """Of one image."""
        return math.prod(self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Those images, in that order, read in the order that they lie in."""
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        return self.take(rows, np.empty((len(rows), *self.shape[1:]), np.uint8))

    def take(self, rows: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Reads those images, in that order, into an array: uint8 (len(rows), height, width, channels), in C order."""
        expected = (len(rows), *self.shape[1:])
        right = found.shape == expected and found.dtype == np.uint8 and found.flags.c_contiguous
        require(right, "found", f"{found.dtype} {found.shape}", f"uint8 {expected} in C order")
        order = np.argsort(rows, kind="stable")
        if len(rows):  # of several processes some may have none of a few
            self.read(rows[order], found, order)
        return found

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise InputError(f"dataset: {one_line(self.where, 200)} is a stream, which is not read at once; take some rows")

    def fingerprint(self) -> str:
        """What names these images: their number and shape, where they lie, and a fixed draw of them."""
        digest = hashlib.sha256(f"{self.shape} {self.identity()}".encode())
        digest.update(self.drawn().data)
        return digest.hexdigest()

    def drawn(self, most: int = DRAWN) -> np.ndarray:
        """A fixed draw of images from all over it, of no more than SHOWN_BYTES."""
        return self[_some(self, max(1, min(most, SHOWN_BYTES // self.image_bytes)))]


def _some(images: Stream, most: int) -> np.ndarray:
    """Rows of a fixed draw of images from all over a stream: all of them, where there are no more."""
    return np.sort(randomness.some_rows(len(images), most))


def shown_count(images: Stream) -> int:
    """How many images figures and latent metrics are made of."""
    return min(len(images), max(1, min(SHOWN, SHOWN_BYTES // images.image_bytes)))


def shown_rows(images: Stream) -> np.ndarray:
    """Rows of the fixed draw of so many images."""
    return _some(images, shown_count(images))


class Rows(Stream):
    """Images of an .npy file, each read from its place.

    Not through a memory map: each of its faults reads what lies around, too, and waits for it alone.
    """

    def __init__(self, path: Path):
        self.where = str(path)
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype != np.uint8 or array.ndim not in (3, 4) or not array.flags.c_contiguous:
            received = f"{array.dtype} {array.shape}{'' if array.flags.c_contiguous else ' in Fortran order'}"
            raise InputError(
                f"dataset: {one_line(path, 200)} holds {received}, expected uint8 (N, height, width[, channels])"
            )
        self._shape = (*array.shape, *[1] * (4 - array.ndim))
        self._first, self._size = array.offset, path.stat().st_size
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def read(self, rows: np.ndarray, found: np.ndarray, places: np.ndarray) -> None:
        memory = found.reshape(len(found), -1)
        runs = np.flatnonzero(np.diff(rows) != 1) + 1  # what lies together is read at once
        if len(rows) < FEW:
            self._fill(memory, rows, places, runs)
            return
        edges = [len(rows) * part // READERS for part in range(READERS + 1)]
        with ThreadPoolExecutor(READERS) as pool:
            parts = [(slice(a, b), runs[(a < runs) & (runs < b)] - a) for a, b in pairwise(edges)]
            list(pool.map(lambda part: self._fill(memory, rows[part[0]], places[part[0]], part[1]), parts))

    def _fill(self, memory: np.ndarray, rows: np.ndarray, places: np.ndarray, runs: np.ndarray) -> None:
        """Reads these rows, which lie together up to each of `runs`, every one to its place."""
        for first, last in pairwise([0, *runs.tolist(), len(rows)]):
            if self.image_bytes < SMALL and last > first:
                together = np.empty((last - first, self.image_bytes), np.uint8)
                self._scatter([together.reshape(-1)], int(rows[first]) * self.image_bytes)
                memory[places[first:last]] = together
                continue
            for begin in range(first, last, AT_ONCE):
                own = places[begin : min(begin + AT_ONCE, last)].tolist()
                self._scatter([memory[place] for place in own], int(rows[begin]) * self.image_bytes)

    def _scatter(self, held: list[Any], place: int) -> None:
        """Reads what lies together from there on into one piece of memory after the other."""
        while held:  # the system may give a part
            count = os.preadv(self._file, held, self._first + place)
            if not count:
                raise InputError(f"dataset: {one_line(self.where, 200)} has become shorter while it was read")
            place += count
            while held and count >= len(held[0]):
                count -= len(held.pop(0))
            if count:
                held[0] = held[0][count:]

    def identity(self) -> str:
        return str(self._size)


class Files(Stream):
    """Image files, decoded by worker processes."""

    def __init__(self, folder: Path, paths: Sequence[Path], kind: Kind, shape: tuple[int, int]):
        self.where, self._folder, self._paths, self._kind = str(folder), folder, paths, kind
        self._shape = len(paths), *shape, kind.channels

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def read(self, rows: np.ndarray, found: np.ndarray, places: np.ndarray) -> None:
        paths = [self._paths[row] for row in rows]
        try:
            found[places] = decode_all(paths, self._kind).reshape(-1, *self.shape[1:])
        except ValueError:  # which says no name
            for path in paths:
                shape = decode(str(path), self._kind).shape
                if shape != self.shape[1:]:
                    raise unreadable(path, f"it is {shape} now, and was {self.shape[1:]}") from None
            raise

    def identity(self) -> str:
        names = "\n".join(f"{path.relative_to(self._folder)} {path.stat().st_size}" for path in self._paths)
        return hashlib.sha256(names.encode()).hexdigest()


class Records(Stream):
    """Images of a set that TensorFlow Datasets prepared as ArrayRecord."""

    def __init__(self, source: Any, name: str, shape: tuple[int, ...]):
        self.where, self._source, self._shape = name, source, (len(source), *shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def read(self, rows: np.ndarray, found: np.ndarray, places: np.ndarray) -> None:
        images = [example["image"] for example in self._source.__getitems__(rows.tolist())]
        for image in images:
            if image.shape != self.shape[1:]:
                received = f"images of {self.shape[1:]} and of {image.shape}"
                raise InputError(f"dataset: {self.where} holds {received}, expected one size; choose another set")
        found[places] = images

    def identity(self) -> str:
        return self.where


class Taken(Stream):
    """Some rows of another stream."""

    def __init__(self, images: Stream, rows: np.ndarray):
        self.where, self._images, self._rows = images.where, images, rows

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self._rows), *self._images.shape[1:]

    def read(self, rows: np.ndarray, found: np.ndarray, places: np.ndarray) -> None:
        own = self._rows[rows]  # in no order
        order = np.argsort(own, kind="stable")
        self._images.read(own[order], found, places[order])

    def identity(self) -> str:
        return self._images.identity() + hashlib.sha256(self._rows.astype(np.int64).data).hexdigest()


class Chunk(NamedTuple):
    """Some steps of an epoch, and the images that a process takes in them."""

    first: int
    """The first step's number."""
    steps: int
    """How many they are."""
    images: np.ndarray
    """uint8, (steps * own, height, width, channels), in the order of the steps."""
    labels: np.ndarray
    """int64, (steps * own,)."""


def require_streamable(config: Config, streamed: bool) -> None:
    """Raises InputError where an experiment asks for what only images in memory give, or does not say what its own
    are."""
    if config.data.stream != streamed:
        what = "a stream" if streamed else "images in memory"
        received = f"config.data.stream: received {config.data.stream} for {what}, expected {streamed}"
        raise InputError(f"{received}; say so in the config, or load the set with stream={config.data.stream}")
    if not streamed:
        return
    if importlib.util.find_spec("grain") is None:
        raise InputError("stream: grain is not installed: pip install '.[stream]'")
    if config.training.randomness != "counter":
        received = config.training.randomness
        raise InputError(f"randomness: received {received} with a stream, expected counter: no epoch is drawn at once")
    if config.data.binarization == "static":
        raise InputError("binarization: received static with a stream, expected none, threshold or dynamic")
    if config.training.execution == "graph":
        raise InputError("execution: received graph with a stream, expected auto, eager or compile")


def chunks(
    images: Stream, labels: np.ndarray, config: Config, epoch: int, first: int = 0, own: slice = slice(None)
) -> Iterator[Chunk]:
    """An epoch's images from a step on, some steps at a time, read ahead by Grain's threads.

    Of each batch those at the places `own` are read, which fall to this process; the steps are the same in each.
    """
    import grain

    source = _Chunks(images, labels, config, epoch, first, own)
    ahead = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
    yield from grain.MapDataset.source(source).to_iter_dataset(ahead)


def last_chunk(
    images: Stream, labels: np.ndarray, config: Config, epoch: int, first: int = 0, own: slice = slice(None)
) -> Chunk:
    """What `chunks` gives last, which may be shorter than those before, but of zeros: of it only the shape is right."""
    source = _Chunks(images, labels, config, epoch, first, own)
    begun = first + (len(source) - 1) * source.at_once
    steps = source.steps - begun
    count = steps * len(range(source.batch)[own])
    return Chunk(begun, steps, np.zeros((count, *images.shape[1:]), np.uint8), np.zeros(count, labels.dtype))


class Reused:
    """Memory for arrays of bytes: that of one which nobody holds any more is given out again."""

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=AHEAD)

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of that shape, uint8, with anything in it; it begins where a device on the host can use it."""
        size = math.prod(shape)
        try:
            memory = self._free.popleft()
        except IndexError:
            memory = np.empty(0, np.uint8)
        if len(memory) < size:
            memory = np.empty(size + ALIGNED, np.uint8)
            memory = memory[-memory.ctypes.data % ALIGNED :]
        return np.asarray(_Lent(memory, self._free))[:size].reshape(shape)


class _Lent:
    """Holds memory while an array made of it lives, as NumPy sees its base."""

    def __init__(self, memory: np.ndarray, free: deque[np.ndarray]):
        self._memory, self._free = memory, free
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._memory)


class _Chunks:
    """An epoch's chunks by their place, as Grain takes a source.

    Memory of a chunk that nobody holds any more is that of a later one: to get it from the system anew takes longer
    than to read what it is for.
    """

    def __init__(
        self, images: Stream, labels: np.ndarray, config: Config, epoch: int, first: int = 0, own: slice = slice(None)
    ):
        self.images, self.labels, self.batch = images, labels, config.training.batch_size
        self.begin, self.own = first, own
        self.steps = randomness.steps_per_epoch(len(images), self.batch)
        self.config, self.epoch = config, epoch
        at_once = max(1, CHUNK // (self.batch * images.image_bytes))
        windows = math.lcm(counters.WINDOW * config.data.block, self.batch) // self.batch
        self.at_once = at_once - at_once % windows if config.data.block > 1 and at_once >= windows else at_once
        self.threshold = config.data.binarization == "threshold"
        self._memory = Reused()

    def __len__(self) -> int:
        return math.ceil((self.steps - self.begin) / self.at_once)

    def __getitem__(self, place: Any) -> Chunk:
        first = self.begin + int(place) * self.at_once
        steps = min(self.at_once, self.steps - first)
        places = np.arange(first * self.batch, (first + steps) * self.batch).reshape(steps, -1)[:, self.own].ravel()
        rows = randomness.counted_order(self.config, self.epoch, places, len(self.images))
        images = self.images.take(rows, self._memory.array((len(rows), *self.images.shape[1:])))
        if self.threshold:
            np.multiply(images > 127, np.uint8(255), out=images)
        return Chunk(first, steps, images, self.labels[rows])
