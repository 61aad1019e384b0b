"""Training into a run's folder: one seed, or many in one program.

What is refused is refused before anything is written or removed. See runs.py for the folder.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from vae_common import checkpoints, datasets
from vae_common.configs import Config, InputError
from vae_common.randomness import steps_per_epoch
from vae_common.records import EpochRecord, NonFiniteLoss, mean_terms
from vae_common.runs import Run, alone_in, require_data


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
    with alone_in(folder), _progress(half, config, resume.epoch if resume else 0) as bar:
        training = _Training(half, config, dataset, Run(folder), list(command), checkpoint_every, resume)
        state = training.begin()

        def on_epoch(state: Any, record: EpochRecord) -> None:
            training.record(state, record)
            _advance(bar, record)

        try:
            state = half.fit(state, dataset, on_epoch=on_epoch)
        except NonFiniteLoss as error:
            training.save(error.state)
            raise
        return training.finish(state)


def train_seeds(
    half: ModuleType,
    configs: Sequence[Config],
    dataset: datasets.Dataset,
    folders: Sequence[Path],
    *,
    command: Sequence[str] = (),
    checkpoint_every: int = 1,
    resumes: Sequence[checkpoints.Checkpoint | None] | None = None,
) -> list[dict[str, Any]]:
    """Trains one model under several seeds in one program, each into a folder of its own, as `train` does.

    Each run can be gone on with by itself. The seconds of an epoch are those of all seeds together.

    Raises:
        InputError: where the configs differ in more than their seed, or their runs stand at different epochs.
        NonFiniteLoss: of the first seed that meets it; every folder then holds its last good state.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(alone_in(folder))
        points = resumes or [None] * len(configs)
        done = 0 if points[0] is None else points[0].epoch
        bar = stack.enter_context(_progress(half, configs[0], done, len(configs)))
        trainings = {
            config.seed: _Training(half, config, dataset, Run(folder), list(command), checkpoint_every, resume)
            for config, folder, resume in zip(configs, folders, points)
        }
        states = half.stack_states([training.begin() for training in trainings.values()])

        def on_epoch(state: Any, record: EpochRecord) -> None:
            trainings[state.config.seed].record(state, record | {"parallel_seeds": len(configs)})
            if state.config.seed == configs[-1].seed:
                _advance(bar, record)

        try:
            states = half.fit(states, dataset, on_epoch=on_epoch)
        except NonFiniteLoss as error:
            for state in half.unstack_states(error.state):
                trainings[state.config.seed].save(state)
            raise
        return [trainings[state.config.seed].finish(state) for state in half.unstack_states(states)]


@contextlib.contextmanager
def _progress(half: ModuleType, config: Config, done: int, seeds: int = 1) -> Iterator[tqdm]:
    said = f"seed {config.seed}" if seeds == 1 else f"{seeds} seeds"
    name = f"{half.__name__.removesuffix('_vae')} {config.model} {said}"
    epochs = config.training.epochs
    with tqdm(desc=name, total=epochs, initial=done, unit="epoch", disable=None, file=sys.stderr) as bar:
        yield bar


def _advance(bar: tqdm, record: EpochRecord) -> None:
    bar.set_postfix_str(f"{record['images_per_second']:,.0f} images/s, loss {record['train']['total_nats']:.2f}")
    bar.update()


class _Training:
    """What one training reads from and writes into its run's folder."""

    def __init__(
        self,
        half: ModuleType,
        config: Config,
        dataset: datasets.Dataset,
        run: Run,
        command: list[str],
        checkpoint_every: int,
        resume: checkpoints.Checkpoint | None,
    ):
        self.half, self.config, self.dataset, self.run, self.resume = half, config, dataset, run, resume
        self.command, self.checkpoint_every = command, checkpoint_every
        self.framework = half.__name__.removesuffix("_vae")
        self.environment = half.environment(config.training.device)
        self.history: list[EpochRecord] = list(resume.history) if resume else []
        self.start = time.perf_counter()

    def begin(self) -> Any:
        """The state to go on from. Whatever can be refused is refused before anything is written or removed."""
        half, config, run, resume = self.half, self.config, self.run, self.resume
        self.dataset.require_shape(config.image_shape)
        self.dataset.require_labels(config.network.classes)
        if resume:
            _require_continuity(run, config, self.dataset, resume)
        going_on = resume is not None and bool(resume.arrays)
        state = (
            half.state_from_arrays(config, resume.arrays)
            if resume and going_on
            else half.create_state(config, self.dataset.train.images)
        )
        checkpoints.remove_parts(run.folder)
        for stale in ("summary.json", "weights.safetensors"):  # until this training has finished, too
            (run.folder / stale).unlink(missing_ok=True)
        made = {"framework": self.framework, "config": config.to_json(), "data": self.dataset.fingerprint}
        run.write_json("config.json", made | {"environment": self.environment, "command": self.command})
        run.rewrite_metrics(self.history)
        if not going_on:
            self.save(state)
        return state

    def save(self, state: Any) -> None:
        arrays, history = self.half.state_to_arrays(state), self.history
        done = checkpoints.Checkpoint(
            arrays, self.config, self.framework, len(history), history, self.dataset.fingerprint
        )
        checkpoints.write(self.run.checkpoint_path, done)

    def record(self, state: Any, record: EpochRecord) -> None:
        self.history.append(record | {"framework": self.framework})
        self.run.append(self.history[-1])
        if record["epoch"] % self.checkpoint_every == 0 or record["epoch"] == self.config.training.epochs:
            self.save(state)

    def finish(self, state: Any) -> dict[str, Any]:
        half, config, dataset = self.half, self.config, self.dataset
        checkpoints.write_weights(self.run.folder / "weights.safetensors", half.to_arrays(state.evaluated))
        split, images = datasets.evaluation_images(dataset, config.data.binarization, "test")
        labels = datasets.labels_for(dataset.test, config)
        speeds = [record["images_per_second"] for record in self.history]
        summary = {
            "framework": self.framework,
            "model": config.model,
            "seed": config.seed,
            "dataset": dataset.name,
            "source": dataset.source,
            "binarization": config.data.binarization,
            "reconstruction_unit": config.reconstruction_unit,
            "is_likelihood": config.is_likelihood,
            "kl_unit": config.kl_unit,
            "epochs": config.training.epochs,
            split: mean_terms(half.evaluate(state.evaluated, images, config, labels)),
            "images": {"train": len(dataset.train), "test": len(dataset.test)},
            "median_images_per_second": statistics.median(speeds) if speeds else None,
            "seconds": time.perf_counter() - self.start,
            "peak_device_bytes": half.peak_memory(half.select_device(config.training.device)),
            "environment": self.environment,
            "folder": str(self.run.folder),
        }
        self.run.write_json("summary.json", summary)
        return summary


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
