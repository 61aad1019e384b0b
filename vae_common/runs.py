"""A run: one training of one model in one half, and the folder that holds it.

config.json             the config, the framework, versions, device, command
metrics.jsonl           one record per finished epoch
checkpoint.safetensors  the state after the last saved epoch (see checkpoints.py)
weights.safetensors     the final weights alone
summary.json            what came out, written last: a folder without it did not finish
figures/                what scripts.plot drew
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from vae_common import checkpoints, datasets
from vae_common.configs import InputError
from vae_common.records import EpochRecord


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    @property
    def checkpoint_path(self) -> Path:
        """The file to resume from."""
        return self.folder / "checkpoint.safetensors"

    def checkpoint(self) -> checkpoints.Checkpoint:
        """The last saved state; raises InputError where the folder is not a run's."""
        if not self.folder.is_dir():
            raise InputError(f"run: {self.folder} does not exist; expected a run's folder")
        return checkpoints.read(self.checkpoint_path)

    def summary(self) -> dict[str, Any]:
        """What the finished run found; raises InputError where it did not finish."""
        try:
            summary = json.loads((self.folder / "summary.json").read_text())
            if missing := {"framework", "test", "environment"} - set(summary):
                raise KeyError(*missing)
            return summary
        except (OSError, ValueError, KeyError, TypeError) as error:
            said = f"run: {self.folder} has no readable summary.json; it did not finish ({error!r})"
            raise InputError(said) from error

    def rewrite_metrics(self, history: Sequence[EpochRecord]) -> None:
        """Makes metrics.jsonl hold exactly these records: a stopped run may have logged one more."""
        lines = "".join(json.dumps(record) + "\n" for record in history)
        checkpoints.write_atomically(self.folder / "metrics.jsonl", lines.encode())

    def append(self, record: EpochRecord) -> None:
        """Adds a line to metrics.jsonl."""
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Writes a JSON file into the folder, atomically."""
        checkpoints.write_atomically(self.folder / name, (json.dumps(values, indent=2) + "\n").encode())


def new_folder(output: str | Path | None, default: str) -> Path:
    """Makes a folder that did not exist: `output`, or else `runs/default`, `runs/default-2`, ...

    Two commands started at once never share one. Raises InputError where `output` holds something.
    """
    if output is not None:
        folder = Path(output)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"output: {folder} exists and is not empty; choose another or delete it")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    for suffix in itertools.chain([""], (f"-{n}" for n in itertools.count(2))):
        folder = Path("runs") / (default + suffix)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise AssertionError("unreachable")


def load_model(half: ModuleType, checkpoint: checkpoints.Checkpoint) -> Any:
    """A checkpoint's model in the given half, whichever half wrote it, on the device at hand.

    What only some devices can (a captured graph, TF32 products) is left out of its config.
    """
    training = dataclasses.replace(checkpoint.config.training, device="auto", execution="auto")
    if training.precision == "tf32":
        training = dataclasses.replace(training, precision="float32")
    config = dataclasses.replace(checkpoint.config, training=training)
    device = half.select_device()
    return half.load_arrays(half.create_model(config), checkpoint.weights, config.training.dtype, device)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps every other training out of a run's folder while its block runs."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"run: {folder} is being trained by another process; wait for it or end it") from None
    finally:
        os.close(descriptor)


def require_data(folder: Path, checkpoint: checkpoints.Checkpoint, dataset: datasets.Dataset) -> None:
    """Raises InputError where a run was trained on other images than these."""
    if checkpoint.data != dataset.fingerprint:
        raise InputError(
            f"data: {folder} was trained on other images than {dataset.source} holds now; "
            "give it the data that it was begun with"
        )
