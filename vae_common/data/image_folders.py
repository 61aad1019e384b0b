"""Folders of image files: PNG, JPEG, WebP, TIFF, one level of class folders or none, decoded by Pillow.

root/train/<class>/*.png, root/test/<class>/*.png     (`validation` or `val`, too)
root/train/*.png, root/test/*.png                     no classes
root/<class>/*.png, root/*.png                        a fixed draw becomes the test split
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_common import randomness
from vae_common.data import memory
from vae_common.data.decoding import Fit, Kind, decode, unreadable
from vae_common.errors import InputError, one_line
from vae_common.progress import counted

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation", "valid": "validation"}
MOST_WORKERS = 8
FEW = 64
"""Files that are not worth a worker of their own."""


class Found(NamedTuple):
    """The files of one split."""

    paths: list[Path]
    classes: list[str]
    """The class folder of each; empty where there are none."""


def holds_images(folder: Path) -> bool:
    """Whether a folder, or one below it, or a class folder of a split, holds an image file."""
    return any(path.suffix.lower() in ENDINGS for pattern in ("*", "*/*", "*/*/*") for path in folder.glob(pattern))


def splits_of(folder: Path, test_share: float) -> dict[str, Found]:
    """The files of each split; without a `test` folder a fixed draw of that share becomes one.

    Raises InputError where files and class folders are mixed, or where there is no image.
    """
    named = {SPLITS[place.name]: place for place in sorted(folder.iterdir()) if place.is_dir() and place.name in SPLITS}
    if named and "train" not in named:
        raise InputError(f"dataset: {one_line(folder, 200)} has folders {sorted(named)}, expected train among them")
    found = {split: _files(place) for split, place in named.items()} or {"train": _files(folder)}
    if "test" not in found:
        paths, classes = found["train"]
        order = randomness.split_order(len(paths))
        held = max(1, round(len(paths) * test_share))
        if held >= len(paths):
            raise InputError(f"dataset: {one_line(folder, 200)} holds {len(paths)} images, expected more to split")
        for split, rows in (("train", sorted(order[held:])), ("test", sorted(order[:held]))):
            found[split] = Found([paths[i] for i in rows], [classes[i] for i in rows] if classes else [])
    with_classes = {split for split, files in found.items() if files.classes}
    if with_classes and with_classes != set(found):
        said = f"dataset: {one_line(folder, 200)}: of its splits only {sorted(with_classes)} have class folders"
        raise InputError(f"{said}, expected all of them or none")
    return found


def _files(folder: Path) -> Found:
    """A split's image files in a fixed order, with their class folders."""
    flat = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in ENDINGS)
    places = sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    deep = {place: sorted(p for p in place.iterdir() if p.suffix.lower() in ENDINGS) for place in places}
    deep = {place: files for place, files in deep.items() if files}
    if flat and deep:
        raise InputError(
            f"dataset: {one_line(folder, 200)} holds image files and class folders ({next(iter(deep)).name}, ...), "
            "expected one or the other; move the files into a class folder"
        )
    if deep:
        return Found(
            [p for files in deep.values() for p in files], [d.name for d, files in deep.items() for _ in files]
        )
    if not flat:
        raise InputError(f"dataset: {one_line(folder, 200)} holds no image files ({', '.join(ENDINGS)})")
    return Found(flat, [])


def signature(folder: Path, splits: dict[str, Found], size: int, fit: str) -> str:
    """Names what would be decoded: equal where names, sizes, times and options are, wherever the folder is."""
    digest = hashlib.sha256(f"{size} {fit}".encode())
    for split, (paths, _) in splits.items():
        for path in paths:
            state = path.stat()
            digest.update(f"{split} {path.relative_to(folder)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def kind_of(splits: dict[str, Found], size: int, fit: Fit) -> tuple[Kind, tuple[int, int]]:
    """What all images become, and their height and width; InputError where they are of several kinds or sizes."""
    seen = {split: _headers(paths) for split, (paths, _) in splits.items()}
    kind = _kind([header for headers in seen.values() for header in headers], size, fit)
    if not size:
        _require_one_size(splits, seen)
    return kind, (size, size) if size else seen["train"][0][1]


def labels_of(splits: dict[str, Found]) -> dict[str, Any]:
    """The classes' names, and the labels of each split where there are any."""
    names = sorted({name for _, classes in splits.values() for name in classes})
    labels = {f"{split}_labels": np.array([names.index(name) for name in of]) for split, (_, of) in splits.items()}
    return {"class_names": tuple(names)} | (labels if names else {})


def read(folder: Path, splits: dict[str, Found], size: int, fit: Fit, progress: bool) -> dict[str, Any]:
    """Decodes every split: arrays as the loader takes them. InputError names a file that cannot be read."""
    kind, (height, width) = kind_of(splits, size, fit)
    found = labels_of(splits)
    for split, (paths, _) in splits.items():
        held = len(paths) * height * width * kind.channels * (4 if kind.sixteen_bits else 1)
        if held > memory.available():
            raise InputError(
                f"dataset: {one_line(folder, 200)} takes {held} bytes decoded, expected a smaller image_size"
            )
        found[f"{split}_images"] = decode_all(paths, kind, f"decoding {folder.name} {split}" if progress else None)
    return found


def _headers(paths: Sequence[Path]) -> list[tuple[str, tuple[int, int]]]:
    """Of each file what it holds (Pillow's mode, "+A" where a palette has transparency), and height and width."""
    from PIL import Image

    headers = []
    for path in paths:
        try:
            with Image.open(path) as image:
                frames = getattr(image, "n_frames", 1)
                if frames > 1:
                    raise InputError(f"dataset: {one_line(path, 300)} holds {frames} images, expected one a file")
                mode = image.mode + ("+A" if image.mode == "P" and "transparency" in image.info else "")
                turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                width, height = image.size[::-1] if turned else image.size
                headers.append((mode, (height, width)))
        except InputError:
            raise
        except Exception as error:  # whatever a decoder raises: the file is named
            raise unreadable(path, error) from error
    return headers


def _kind(headers: Sequence[tuple[str, tuple[int, int]]], size: int, fit: Fit) -> Kind:
    """Grey where all are grey, RGB with alpha where all have alpha, else RGB; float where one has 16 bits."""
    modes = Counter(mode for mode, _ in headers)
    sixteen = any(mode.startswith("I") or mode == "F" for mode in modes)
    grey = all(mode in ("1", "L") or mode.startswith("I") or mode == "F" for mode in modes)
    alpha = all(mode in ("RGBA", "LA", "PA", "P+A") for mode in modes)
    if sixteen and not grey:
        raise InputError(f"dataset: received files of {', '.join(sorted(modes))}; expected 16-bit ones to be all grey")
    if "F" in modes:
        raise InputError("dataset: received image files of floats, whose range is not stated; write an .npz of floats")
    return Kind(1 if grey else 4 if alpha else 3, sixteen, size, fit)


def _require_one_size(splits: dict[str, Found], seen: dict[str, list[tuple[str, tuple[int, int]]]]) -> None:
    all_files = [(path, size) for split in splits for path, (_, size) in zip(splits[split].paths, seen[split])]
    first, expected = all_files[0]
    for path, size in all_files:
        if size != expected:
            raise InputError(
                f"dataset: {one_line(first, 200)} is {expected[0]}x{expected[1]}, {one_line(path, 200)} "
                f"{size[0]}x{size[1]}; expected one size, or --image-size (with --fit crop or pad)"
            )


def decode_all(paths: Sequence[Path], kind: Kind, shown: str | None = None) -> np.ndarray:
    """The images (N, height, width, channels), by worker processes where that pays; `shown` names a progress line."""
    workers = min(MOST_WORKERS, os.cpu_count() or 1, len(paths) // FEW)
    if workers < 2:
        each = counted(paths, shown, len(paths), "image") if shown else paths
        return np.stack([decode(str(path), kind) for path in each])
    size = max(FEW, len(paths) // (8 * workers))
    parts = [[str(path.absolute()) for path in paths[i : i + size]] for i in range(0, len(paths), size)]
    with ThreadPoolExecutor(workers) as pool:
        decoded = pool.map(lambda part: _by_worker(part, kind), parts)
        return np.concatenate(list(counted(decoded, shown, len(parts), "part") if shown else decoded))


def _by_worker(paths: Sequence[str], kind: Kind) -> np.ndarray:
    asked = json.dumps({"paths": paths, "kind": vars(kind)}).encode()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "vae_common.data.decoding"]
    result = subprocess.run(command, input=asked, capture_output=True, env=environment, check=False)
    if result.returncode == 2:
        raise InputError(result.stderr.decode(errors="replace").strip())
    if result.returncode:
        raise unreadable(f"one of {paths[0]} to {paths[-1]}", f"the decoder ended with {result.returncode}")
    images: np.ndarray = np.load(io.BytesIO(result.stdout), allow_pickle=False)
    return images
