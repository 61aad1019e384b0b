"""The checkpoint: one safetensors file that both halves write and read, bit for bit.

    encoder.hidden.0.weight ...     weights under PyTorch's names and layouts
    adam.first.<name>, adam.second.<name>, adam.step
    average.<name>                  where the config keeps a moving average of the weights
    epoch_terms.<term>              of a stream, within an epoch: the terms of its steps so far
    metadata "twin_vae"             JSON: format version, config, framework, epoch, history, digest

Written atomically: a reader sees the old file or the new one, never a part. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from vae_common.backend import FRAMEWORKS
from vae_common.config import Config
from vae_common.contracts import NAMES, Terms
from vae_common.errors import InputError, one_line, shown
from vae_common.files import parse_json, reason, require_regular, write_atomically

FORMAT_VERSION = 2
MOST_STEPS = 2**24  # PyTorch counts Adam's steps in float32, which is exact up to there
FIRST, SECOND, STEP = "adam.first.", "adam.second.", "adam.step"
AVERAGE = "average."
EPOCH_TERMS = "epoch_terms."

Arrays = dict[str, np.ndarray]
"""By canonical name."""


@dataclass(frozen=True)
class Checkpoint:
    """A training state as canonical arrays, with what is needed to go on from it."""

    arrays: Arrays
    config: Config
    framework: str
    """`jax` or `torch`: who wrote it."""
    epoch: int
    """Epochs that are finished."""
    history: list[dict[str, Any]]
    """One record per finished epoch."""
    data: str
    """The fingerprint of the data that it was trained on and evaluated with (see `data.splits.Dataset`)."""
    terms: Terms | None = None
    """Within an epoch every finished step's terms, float64 (steps,): the next batch is the one after them."""

    @property
    def here(self) -> Config:
        """The config on the device at hand, without what only some can (a captured graph, TF32 products)."""
        training = dataclasses.replace(self.config.training, device="auto", execution="auto")
        if training.precision == "tf32":
            training = dataclasses.replace(training, precision="float32")
        return dataclasses.replace(self.config, training=training)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The model's parameters alone: those that evaluations use, so their moving average where one was kept."""
        return part_of(self.arrays, AVERAGE) or weights_of(self.arrays)


def weights_of(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The parameters of a training state's canonical arrays."""
    return {name: a for name, a in arrays.items() if not name.startswith(("adam.", AVERAGE))}


def moments_of(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Adam's moments and step."""
    return {name: a for name, a in arrays.items() if name.startswith("adam.")}


def part_of(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """What begins with that prefix, without it."""
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def check_arrays(
    expected: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray], dtype: str | None = None
) -> None:
    """Raises InputError that lists everything at once: missing and extra tensors, shapes, dtypes.

    Without a `dtype` any floating-point numbers fit.
    """
    faults = [f"{name} missing" for name in sorted(set(expected) - set(arrays))]
    faults += [f"{name} not in the model" for name in sorted(set(arrays) - set(expected))]
    for name in sorted(set(expected) & set(arrays)):
        array, shape = arrays[name], tuple(expected[name])
        if tuple(array.shape) != shape:
            faults.append(f"{name} is {array.shape}, expected {shape}")
        if array.dtype != dtype if dtype else array.dtype.kind != "f":
            faults.append(f"{name} is {array.dtype}, expected {dtype or 'floating-point numbers'}")
    if faults:
        raise InputError(f"weights do not fit the model: {'; '.join(faults)}")


def check_state(
    shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray], dtype: str, average: bool = False
) -> None:
    """Raises InputError where arrays are not a training state of the model with these parameter shapes."""
    if STEP not in arrays:
        raise InputError(f"checkpoint: received no {STEP}, expected a training state; it holds weights only")
    step = arrays[STEP]
    if step.shape != () or step.dtype.kind not in "iu" or not 0 <= int(step) <= MOST_STEPS:
        raise InputError(f"checkpoint: {STEP} is {step!r}, expected one integer from 0 to {MOST_STEPS}")
    expected = {
        prefix + name: shape for prefix in ("", FIRST, SECOND, *[AVERAGE] * average) for name, shape in shapes.items()
    }
    check_arrays(expected, {name: array for name, array in arrays.items() if name != STEP}, dtype)
    require_sound(arrays)


def require_sound(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises InputError where weights or moments are not finite, or a second moment is negative."""
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    lost = [name for name, array in numbers.items() if not np.isfinite(array).all()]
    if lost:
        said = one_line(", ".join(lost), 200)
        raise InputError(f"checkpoint: {said} hold NaN or infinite numbers; go back to an earlier one")
    negative = [name for name, array in numbers.items() if name.startswith(SECOND) and (array < 0).any()]
    if negative:
        said = one_line(", ".join(negative), 200)
        raise InputError(f"checkpoint: {said} hold negative numbers, which no mean of squares is; take another one")


CHECKPOINT = "checkpoint.safetensors"
"""The file's name in a run's folder."""


def read_run(folder: str | os.PathLike[str]) -> Checkpoint:
    """The last saved state of a run; InputError where the folder is none."""
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"run: {one_line(path, 300)} does not exist; expected a run's folder")
    return read(path / CHECKPOINT)


def write(path: str | Path, checkpoint: Checkpoint) -> None:
    """Replaces the file at `path` in one step; the old one stays whole until then."""
    header = {
        "format_version": FORMAT_VERSION,
        "config": checkpoint.config.to_json(),
        "framework": checkpoint.framework,
        "epoch": checkpoint.epoch,
        "history": checkpoint.history,
        "data": checkpoint.data,
    }
    terms = {} if checkpoint.terms is None else checkpoint.terms.named()
    all_of_it = checkpoint.arrays | {EPOCH_TERMS + name: values for name, values in terms.items()}
    arrays = {name: np.asarray(array, order="C") for name, array in all_of_it.items()}
    text = json.dumps(header)
    metadata = {"twin_vae": text, "sha256": _digest(text, arrays)}
    write_atomically(path, safetensors.numpy.save(arrays, metadata))


def read(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`; raises InputError where it is not one, has been damaged, or holds NaN."""
    try:
        require_regular(Path(path), "checkpoint")
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise InputError(f"checkpoint: {path} does not exist; expected a run's checkpoint.safetensors") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"checkpoint: {path} is damaged or no safetensors file ({reason(error)})") from error
    if "twin_vae" not in metadata:
        raise InputError(f"checkpoint: {path} has no twin_vae header; expected a file that a run wrote")
    text = metadata["twin_vae"]
    if metadata.get("sha256") != _digest(text, arrays):
        raise InputError(f"checkpoint: {path} is damaged: its contents do not match its SHA-256")
    header = _header(text, f"checkpoint: {path}")
    terms = part_of(arrays, EPOCH_TERMS)
    arrays = {name: array for name, array in arrays.items() if not name.startswith(EPOCH_TERMS)}
    require_sound(arrays)
    return Checkpoint(arrays=arrays, terms=_terms(terms, f"checkpoint: {path}"), **header)


def _terms(found: Arrays, where: str) -> Terms | None:
    """The terms of an epoch's steps, of their names; InputError where they are not as many of each, finite."""
    if not found:
        return None
    shapes = {array.shape for array in found.values()}
    sound = all(array.dtype == np.float64 and np.isfinite(array).all() for array in found.values())
    if not {*NAMES} <= found.keys() or len(shapes) != 1 or len(*shapes) != 1 or not sound:
        raise InputError(f"{where} holds an epoch's terms {sorted(found)}, {sorted(shapes)}, expected (steps,) of each")
    return Terms.of(found)


def _header(text: str, where: str) -> dict[str, Any]:
    """The header's fields, checked: a digest says that a file is whole, not who wrote it."""
    try:
        header = parse_json(text)
        version = header.pop("format_version", None)
        ours = (
            set(header) == {"config", "framework", "epoch", "history", "data"}
            and isinstance(header["framework"], str)
            and header["framework"] in FRAMEWORKS
            and isinstance(header["data"], str)
            and [record["epoch"] for record in header["history"]] == list(range(1, header["epoch"] + 1))
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"{where} has a header that no run wrote ({reason(error)})"
        raise InputError(f"{said}; expected a run's own file") from error
    if version != FORMAT_VERSION:
        raise InputError(f"{where} has format version {shown(version)}, expected {FORMAT_VERSION}; train it anew")
    if not ours:
        raise InputError(f"{where} has a header that no run wrote ({one_line(text, 200)}); expected a run's own file")
    found: dict[str, Any] = header | {"config": Config.from_record(header["config"])}
    return found


def write_weights(path: str | Path, weights: Mapping[str, np.ndarray]) -> None:
    """Weights alone, as `model.load_state_dict(safetensors.torch.load_file(path))` takes them."""
    write_atomically(path, safetensors.numpy.save({k: np.asarray(v, order="C") for k, v in weights.items()}))


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.asarray(array, order="C").data)
    return digest.hexdigest()
