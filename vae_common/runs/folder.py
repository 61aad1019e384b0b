"""A run: one training of one model in one half, and the folder that holds it.

config.json             the config, the framework, versions, device, command
metrics.jsonl           one record per finished epoch
checkpoint.safetensors  the state after the last saved epoch (see checkpoints.py)
weights.safetensors     the final weights alone
summary.json            what came out, written last: a folder without it did not finish
figures/                what scripts.plot drew
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_common import files
from vae_common.backend import FRAMEWORKS, Half
from vae_common.config import Config
from vae_common.data.splits import Dataset
from vae_common.errors import InputError, one_line, shown
from vae_common.runs import checkpoints
from vae_common.runs.epoch_records import TERMS, EpochRecord

SUMMARY = "summary.json"
BEGUN = "config.json"
TRAINED_ELSEWHERE = "is being trained by another process"


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    @property
    def checkpoint_path(self) -> Path:
        """The file to resume from."""
        return self.folder / checkpoints.CHECKPOINT

    def checkpoint(self) -> checkpoints.Checkpoint:
        """The last saved state; raises InputError where the folder is not a run's."""
        return checkpoints.read_run(self.folder)

    def summary(self, checkpoint: checkpoints.Checkpoint | None = None) -> dict[str, Any]:
        """What the finished run found; raises InputError where it did not finish, or somebody else wrote the file.

        `checkpoint` is the run's own, where it has been read already.
        """
        path = self.folder / SUMMARY
        if not path.exists():
            raise InputError(f"run: {one_line(self.folder, 300)} has no {SUMMARY}; it did not finish: resume it")
        summary: dict[str, Any] = files.read_json(path, "run")
        _require_summary(summary, path)
        state = checkpoint or self.checkpoint()
        if not summary["epochs"] == state.epoch == state.config.training.epochs:
            raise InputError(
                f"run: {self.folder} did not finish: its summary is of {shown(summary['epochs'])} epochs, it has "
                f"{state.epoch} and goes to {state.config.training.epochs}; resume it"
            )
        return summary

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its last epoch, and its summary says so."""
        if not (self.folder / SUMMARY).exists():
            return False
        try:
            self.summary()
        except InputError:
            return False
        return True

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds something to go on from."""
        return self.checkpoint_path.exists() or (self.folder / BEGUN).exists()

    def resume_point(self) -> checkpoints.Checkpoint:
        """Where to go on: the run's checkpoint, or its start if it was stopped before the first one."""
        described = self.folder / BEGUN
        if self.checkpoint_path.exists() or not described.exists():
            return self.checkpoint()
        record = files.read_json(described, "resume")
        try:
            config, framework, data = Config.from_record(record["config"]), record["framework"], record["data"]
        except (KeyError, TypeError, InputError) as error:
            said = f"resume: {described} is damaged ({files.reason(error)})"
            raise InputError(f"{said}; start the run anew") from error
        require_framework(framework, str(described))
        if not isinstance(data, str):
            raise InputError(f"resume: {described} is damaged (data: {shown(data)}); start the run anew")
        return checkpoints.Checkpoint({}, config, framework, 0, [], data)

    def rewrite_metrics(self, history: Sequence[EpochRecord]) -> None:
        """Makes metrics.jsonl hold exactly these records: a stopped run may have logged one more."""
        lines = "".join(json.dumps(record) + "\n" for record in history)
        files.write_atomically(self.folder / "metrics.jsonl", lines.encode())

    def append(self, record: EpochRecord) -> None:
        """Adds a line to metrics.jsonl."""
        files.append_line(self.folder / "metrics.jsonl", json.dumps(record))

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Writes a JSON file into the folder, atomically."""
        files.write_json(self.folder / name, values)


def require_framework(name: object, where: str) -> None:
    """Raises InputError where a file names a half that there is none of: nothing is imported because a file says so."""
    if not (isinstance(name, str) and name in FRAMEWORKS):
        raise InputError(f"{where}: received framework {shown(name)}, expected one of {', '.join(FRAMEWORKS)}")


def _require_summary(summary: Any, path: Path) -> None:
    """Raises InputError where a summary lacks a field, or holds a word or NaN for a number."""

    def number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

    try:
        require_framework(summary["framework"], str(path))
        checks = {
            "test": isinstance(summary["test"], dict) and all(number(summary["test"].get(term)) for term in TERMS),
            "epochs": isinstance(summary["epochs"], int),
            "environment": isinstance(summary["environment"], dict)
            and all(isinstance(value, str) for value in summary["environment"].values())
            and {"framework", "device"} <= set(summary["environment"]),
            "median_images_per_second": summary["median_images_per_second"] is None
            or number(summary["median_images_per_second"]),
        }
    except (KeyError, TypeError, AttributeError) as error:
        said = f"run: {path} is no summary that a run wrote (missing {files.reason(error)})"
        raise InputError(f"{said}; resume the run, which writes it anew") from error
    wrong = [name for name, right in checks.items() if not right]
    if wrong:
        received = "; ".join(f"{name}: {shown(summary[name])}" for name in wrong)
        raise InputError(
            f"run: {path} is no summary that a run wrote ({received}); resume the run, which writes it anew"
        )


def new_folder(output: str | Path | None, default: str) -> Path:
    """Makes a folder that did not exist: `output`, or else `runs/default`, `runs/default-2`, ...

    Two commands started at once never share one. Raises InputError where `output` holds something, other than what a
    command that was killed at once left behind.
    """
    if output is not None:
        folder = Path(output)
        if folder.exists() and not (folder.is_dir() and files.is_unused(folder)):
            raise InputError(f"output: {one_line(folder, 300)} exists and is not empty; choose another or delete it")
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


def load_model(half: Half, checkpoint: checkpoints.Checkpoint) -> Any:
    """A checkpoint's model in the given half, whichever half wrote it, on the device at hand."""
    config = checkpoint.here
    device = half.select_device()
    return half.load_arrays(half.create_model(config), checkpoint.weights, config.training.dtype, device)


def require_data(folder: Path, fingerprint: str, dataset: Dataset) -> None:
    """Raises InputError where a run was trained on, or evaluated with, other data than these.

    Of a run of an earlier version only the training images are known; a notice says so.
    """
    same = dataset.matches(fingerprint)
    if same is False:
        raise InputError(
            f"data: {folder} was trained on other images, labels or splits than {dataset.source} holds now; "
            "give it the data that it was begun with"
        )
    if same is None:
        print(
            f"notice: {folder} is of an earlier version, which kept a fingerprint of its training images only: "
            "they are the same, labels and test images unknown",
            file=sys.stderr,
        )
