"""The checkpoint: one safetensors file that both halves write and read, bit for bit.

    encoder.hidden.0.weight ...     weights under PyTorch's names and layouts
    adam.first.<name>, adam.second.<name>, adam.step
    metadata "twin_vae"             JSON: format version, config, framework, epoch, history, digest

Written atomically: a reader sees the old file or the new one, never a part. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from vae_common.configs import Config, InputError

FORMAT_VERSION = 1
FIRST, SECOND, STEP = "adam.first.", "adam.second.", "adam.step"


@dataclass(frozen=True)
class Checkpoint:
    """A training state as canonical arrays, with what is needed to go on from it."""

    arrays: dict[str, np.ndarray]
    config: Config
    framework: str
    """`jax` or `torch`: who wrote it."""
    epoch: int
    """Epochs that are finished."""
    history: list[dict[str, Any]]
    """One record per finished epoch."""

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The model's parameters alone."""
        return {name: array for name, array in self.arrays.items() if not name.startswith("adam.")}


def check_shapes(expected: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]) -> None:
    """Raises InputError that lists every missing, extra and mis-shaped tensor at once."""
    faults = [f"{name} missing" for name in sorted(set(expected) - set(arrays))]
    faults += [f"{name} not in the model" for name in sorted(set(arrays) - set(expected))]
    faults += [
        f"{name} is {arrays[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if name in arrays and tuple(arrays[name].shape) != tuple(shape)
    ]
    if faults:
        raise InputError(f"weights do not fit the model: {'; '.join(faults)}")


def write(path: str | Path, checkpoint: Checkpoint) -> None:
    """Replaces the file at `path` in one step; the old one stays whole until then."""
    header = {
        "format_version": FORMAT_VERSION,
        "config": checkpoint.config.to_json(),
        "framework": checkpoint.framework,
        "epoch": checkpoint.epoch,
        "history": checkpoint.history,
    }
    arrays = {name: np.asarray(array, order="C") for name, array in checkpoint.arrays.items()}
    text = json.dumps(header)
    metadata = {"twin_vae": text, "sha256": _digest(text, arrays)}
    write_atomically(path, safetensors.numpy.save(arrays, metadata))


def read(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`; raises InputError where it is not one or has been damaged."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise InputError(f"checkpoint: {path} does not exist; expected a run's checkpoint.safetensors") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"checkpoint: {path} is damaged or no safetensors file ({error})") from error
    if "twin_vae" not in metadata:
        raise InputError(f"checkpoint: {path} has no twin_vae header; expected a file that a run wrote")
    text = metadata["twin_vae"]
    if metadata.get("sha256") != _digest(text, arrays):
        raise InputError(f"checkpoint: {path} is damaged: its contents do not match its SHA-256")
    header = json.loads(text)
    version = header.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise InputError(f"checkpoint: {path} has format version {version}, expected {FORMAT_VERSION}")
    return Checkpoint(arrays=arrays, **header | {"config": Config.from_json(header["config"])})


def write_weights(path: str | Path, weights: Mapping[str, np.ndarray]) -> None:
    """Weights alone, as `model.load_state_dict(safetensors.torch.load_file(path))` takes them."""
    write_atomically(path, safetensors.numpy.save({k: np.asarray(v, order="C") for k, v in weights.items()}))


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes beside `path`, syncs to the disk, then renames over it."""
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.asarray(array, order="C").data)
    return digest.hexdigest()
