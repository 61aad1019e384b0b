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
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from vae_common import checkpoints, datasets
from vae_common.configs import Config, InputError
from vae_common.randomness import steps_per_epoch
from vae_common.records import EpochRecord, NonFiniteLoss, mean_terms


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
    """A checkpoint's model in the given half, whichever half wrote it, on the device at hand."""
    training = dataclasses.replace(checkpoint.config.training, device="auto")
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


def train(
    half: ModuleType,
    config: Config,
    dataset: datasets.Dataset,
    folder: Path,
    *,
    command: Sequence[str] = (),
    checkpoint_every: int = 1,
    resume: checkpoints.Checkpoint | None = None,
) -> dict[str, Any]:
    """Trains one model in one half, to the config's last epoch; returns what summary.json holds.

    Args:
        half: `jax_vae` or `torch_vae`.
        config: its image_shape has to be the data's.
        dataset: with its validation split already held out.
        folder: the run's; a fresh one, or the one that `resume` came from.
        checkpoint_every: epochs between checkpoints; the first and the last state are always kept.
        resume: goes on from there, whichever half wrote it. In the same half the result is bit for bit
            that of a run that never stopped.

    Raises:
        NonFiniteLoss: the folder then holds the last good state as its checkpoint, and no summary.
    """
    with alone_in(folder):
        return _train(half, config, dataset, Run(folder), list(command), checkpoint_every, resume)


def _require_continuity(run: Run, config: Config, dataset: datasets.Dataset, resume: checkpoints.Checkpoint) -> None:
    """Raises InputError where the run would not go on from where it stopped."""
    require_data(run.folder, resume, dataset)
    if run.checkpoint_path.exists() and run.checkpoint().epoch != resume.epoch:
        raise InputError(f"resume: {run.folder} was trained on while it was being read; resume it again")
    if resume.arrays:
        steps = resume.epoch * steps_per_epoch(len(dataset.train), config.training.batch_size)
        found = resume.arrays.get(checkpoints.STEP)
        if found is None or found.shape != () or int(found) != steps:
            raise InputError(f"checkpoint: received step {found}, expected {steps} after {resume.epoch} epochs")


def require_data(folder: Path, checkpoint: checkpoints.Checkpoint, dataset: datasets.Dataset) -> None:
    """Raises InputError where a run was trained on other images than these."""
    if checkpoint.data != dataset.fingerprint:
        raise InputError(
            f"data: {folder} was trained on other images than {dataset.source} holds now; "
            "give it the data that it was begun with"
        )


def _train(
    half: ModuleType,
    config: Config,
    dataset: datasets.Dataset,
    run: Run,
    command: list[str],
    checkpoint_every: int,
    resume: checkpoints.Checkpoint | None,
) -> dict[str, Any]:
    framework = half.__name__.removesuffix("_vae")
    environment = half.environment(config.training.device)
    dataset.require_shape(config.image_shape)
    history: list[EpochRecord] = list(resume.history) if resume else []
    start = time.perf_counter()
    if resume:
        _require_continuity(run, config, dataset, resume)
    going_on = resume is not None and bool(resume.arrays)
    state = half.state_from_arrays(config, resume.arrays) if resume and going_on else half.create_state(config)

    def save(state: Any) -> None:
        arrays = half.state_to_arrays(state)
        done = checkpoints.Checkpoint(arrays, config, framework, len(history), history, dataset.fingerprint)
        checkpoints.write(run.checkpoint_path, done)

    # Whatever could be refused has been: only now is anything written or removed.
    checkpoints.remove_parts(run.folder)
    for stale in ("summary.json", "weights.safetensors"):  # until this training has finished, too
        (run.folder / stale).unlink(missing_ok=True)
    made = {"framework": framework, "config": config.to_json(), "data": dataset.fingerprint}
    run.write_json("config.json", made | {"environment": environment, "command": command})
    run.rewrite_metrics(history)
    if not going_on:
        save(state)
    with tqdm(
        desc=f"{framework} {config.model} seed {config.seed}",
        total=config.training.epochs,
        initial=len(history),
        unit="epoch",
        disable=None,
        file=sys.stderr,
    ) as bar:

        def on_epoch(state: Any, record: EpochRecord) -> None:
            history.append(record | {"framework": framework})
            run.append(history[-1])
            if record["epoch"] % checkpoint_every == 0 or record["epoch"] == config.training.epochs:
                save(state)
            bar.set_postfix_str(
                f"{record['images_per_second']:,.0f} images/s, loss {record['train']['total_nats']:.2f}"
            )
            bar.update()

        try:
            state = half.fit(state, dataset, on_epoch=on_epoch)
        except NonFiniteLoss as error:
            save(error.state)
            raise
    checkpoints.write_weights(run.folder / "weights.safetensors", half.to_arrays(state.model))
    split, images = datasets.evaluation_images(dataset, config.data.binarization, "test")
    speeds = [record["images_per_second"] for record in history]
    summary = {
        "framework": framework,
        "model": config.model,
        "seed": config.seed,
        "dataset": dataset.name,
        "source": dataset.source,
        "binarization": config.data.binarization,
        "reconstruction_unit": config.reconstruction_unit,
        "kl_unit": config.kl_unit,
        "epochs": config.training.epochs,
        split: mean_terms(half.evaluate(state.model, images, config)),
        "images": {"train": len(dataset.train), "test": len(dataset.test)},
        # The first epoch holds the compilation.
        "median_images_per_second": statistics.median(speeds[1:] or speeds) if speeds else None,
        "seconds": time.perf_counter() - start,
        "peak_device_bytes": half.peak_memory(half.select_device(config.training.device)),
        "environment": environment,
        "folder": str(run.folder),
    }
    run.write_json("summary.json", summary)
    return summary
