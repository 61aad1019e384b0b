"""Training into a run's folder: one seed, or many in one program.

What is refused is refused before anything is written or removed. See folder.py for the folder.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_common import files, machine, stopping
from vae_common.backend import Half, name_of
from vae_common.config import Config
from vae_common.contracts import Terms
from vae_common.data import memory
from vae_common.data.seen import evaluated_by
from vae_common.data.splits import Dataset
from vae_common.errors import InputError
from vae_common.progress import Progress
from vae_common.randomness import steps_per_epoch
from vae_common.runs import checkpoints, resume
from vae_common.runs.epoch_records import EpochRecord, NonFiniteLoss, mean_terms
from vae_common.runs.folder import BEGUN, SUMMARY, TRAINED_ELSEWHERE, Run, require_data
from vae_common.runs.together import Silent, together, writes


def notice_of_slow_arithmetic(half: Half, config: Config) -> None:
    """Says where bfloat16 is asked for of a processor without it: the numbers are the same, the time is not."""
    on_cpu = half.platform_of(half.device_for(config)) == "cpu"
    if config.training.precision == "bfloat16" and on_cpu and not machine.multiplies_bfloat16():
        said = "this processor has no bfloat16 instructions: products are emulated, in PyTorch many times slower"
        print(f"notice: precision: {said}", file=sys.stderr)


def require_trainable(half: Half, config: Config, dataset: Dataset, seeds: int = 1) -> None:
    """Raises InputError for whatever would stop a training later: nothing has been written yet.

    Images of another shape, labels that the model cannot have, too few images for a batch, a device or arithmetic that
    is not there, a network, batch or number of draws that the memory does not hold.
    """
    dataset.require_shape(config.image_shape)
    dataset.require_labels(config.network.classes)
    dataset.require_levels(config)
    dataset.require_count(config)
    dataset.require_streamable(config)
    half.distributed.require_shareable(config)
    steps_per_epoch(len(dataset.train), config.training.batch_size)
    device = half.device_for(config)
    held = 0 if dataset.train.streamed else len(dataset.train)
    memory.require(config, half.model_shapes(config), held, half.free_memory(device), seeds)


def train(
    half: Half,
    config: Config,
    dataset: Dataset,
    folder: Path,
    *,
    command: Sequence[str] = (),
    checkpoint_every: int = 1,
    checkpoint_steps: int = 1000,
    resume: checkpoints.Checkpoint | None = None,
) -> dict[str, Any]:
    """Trains one model in one half, to the config's last epoch; returns what summary.json holds.

    Args:
        half: `jax_vae` or `torch_vae`.
        config: its image_shape has to be the data's.
        dataset: with its validation split already held out.
        folder: the run's; a fresh one, or the one that `resume` came from.
        checkpoint_every: epochs between checkpoints; the first and the last state are always kept.
        checkpoint_steps: of a stream: at least so many steps between checkpoints within an epoch; 0 for none.
        resume: goes on from there, whichever half wrote it. In the same half the result is bit for bit
            that of a run that never stopped.

    Raises:
        NonFiniteLoss: the folder then holds the last good state as its checkpoint; a summary is of an earlier end.
    """
    with contextlib.ExitStack() as stack:
        with together(half):
            require_trainable(half, config, dataset)
            if writes(half):
                stack.enter_context(files.alone_in(folder, TRAINED_ELSEWHERE))
        bar = stack.enter_context(_progress(half, config, resume.epoch if resume else 0))
        notice_of_slow_arithmetic(half, config)
        training = _Training(half, config, dataset, Run(folder), list(command), checkpoint_every, resume)
        training.checkpoint_steps = checkpoint_steps
        state = training.begin()
        if writes(half) and (half.distributed.world().size == 1 or config.training.sharding == "data"):
            stack.enter_context(stopping.saving(lambda: _save_kept(half, training.kept, [training])))

        def on_epoch(state: Any, record: EpochRecord) -> None:
            training.record(state, record)
            _advance(bar, record)

        try:
            done = resume.terms if resume else None
            state = half.fit(
                state, dataset, on_epoch=on_epoch, on_start=training.keep, on_part=training.save_part, done=done
            )
        except NonFiniteLoss as error:
            training.save(error.state)
            raise
        return training.finish(state)


def train_seeds(
    half: Half,
    configs: Sequence[Config],
    dataset: Dataset,
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
    require_trainable(half, configs[0], dataset, len(configs))
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(files.alone_in(folder, TRAINED_ELSEWHERE))
        points = resumes or [None] * len(configs)
        done = 0 if points[0] is None else points[0].epoch
        bar = stack.enter_context(_progress(half, configs[0], done, len(configs)))
        members = {
            config.seed: _Training(half, config, dataset, Run(folder), list(command), checkpoint_every, resume)
            for config, folder, resume in zip(configs, folders, points)
        }
        states = half.stack_states([training.begin() for training in members.values()])

        one = members[configs[0].seed]
        stack.enter_context(stopping.saving(lambda: _save_kept(half, one.kept, list(members.values()))))

        def on_epoch(state: Any, record: EpochRecord) -> None:
            members[state.config.seed].record(state, record | {"ensemble": len(configs)})
            if state.config.seed == configs[-1].seed:
                _advance(bar, record)

        try:
            states = half.fit(states, dataset, on_epoch=on_epoch, on_start=one.keep)
        except NonFiniteLoss as error:
            for state in half.unstack_states(error.state):
                members[state.config.seed].save(state)
            raise
        return [members[state.config.seed].finish(state) for state in half.unstack_states(states)]


def complete(
    half: Half,
    configs: Sequence[Config],
    dataset: Dataset,
    folders: Sequence[Path],
    *,
    together: bool = False,
    given_up: str | None = None,
    **options: Any,
) -> None:
    """Trains the runs of one model, a seed a folder, to their end from wherever they stand; makes the folders.

    A finished run is left as it is, so a study that was stopped goes on where it was.

    Args:
        together: seeds of which none has been begun are trained in one program.
        given_up: a file's name: where a loss stops being finite it is written into the run's folder, and such a run is
            not tried again. Without it NonFiniteLoss is raised.
        options: what `train` takes.

    Raises:
        InputError: where a folder holds another experiment's run, or one on other data.
    """
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    points = [_begun(folder, config, dataset) for folder, config in zip(folders, configs)]
    if together and len(configs) > 1 and not any(points):
        try:
            train_seeds(half, configs, dataset, folders, **options)
        except NonFiniteLoss:  # which seeds go on is found one by one
            if given_up is None:
                raise
        points = [_begun(folder, config, dataset) for folder, config in zip(folders, configs)]
    for config, folder, point in zip(configs, folders, points):
        if Run(folder).is_finished or (given_up and (folder / given_up).exists()):
            continue
        try:
            train(half, config, dataset, folder, resume=point, **options)
        except NonFiniteLoss as error:
            if given_up is None:
                raise
            Run(folder).write_json(given_up, {"error": str(error)})


def _begun(folder: Path, config: Config, dataset: Dataset) -> checkpoints.Checkpoint | None:
    """Where a run stands; InputError where the folder holds another experiment's, or one on other data."""
    point = resume.begun(folder, config)
    if point is not None:
        require_data(folder, point.data, dataset)
    return point


def _save_kept(half: Half, kept: Any, members: Sequence[_Training]) -> None:
    """Saves the state before the epoch that is running, of one seed or of several at once, unless it has been saved."""
    if kept is None:
        return
    states = half.unstack_states(kept) if kept.seeds else [kept]
    for state, training in zip(states, members):
        if training.epochs_of(state) > training.saved:
            training.save(state)


def _progress(half: Half, config: Config, done: int, seeds: int = 1) -> Progress:
    if not writes(half):
        return Silent()
    said = f"seed {config.seed}" if seeds == 1 else f"{seeds} seeds"
    name = f"{name_of(half)} {config.model} {said}"
    return Progress(name, config.training.epochs, "epoch", done)


def _advance(bar: Progress, record: EpochRecord) -> None:
    bar.update(note=f"{record['images_per_second']:,.0f} images/s, objective {record['train']['objective_nats']:.2f}")


class _Training:
    """What one training reads from and writes into its run's folder."""

    def __init__(
        self,
        half: Half,
        config: Config,
        dataset: Dataset,
        run: Run,
        command: list[str],
        checkpoint_every: int,
        resume: checkpoints.Checkpoint | None,
    ):
        self.half, self.config, self.dataset, self.run, self.resume = half, config, dataset, run, resume
        self.command, self.checkpoint_every = command, checkpoint_every
        self.framework = name_of(half)
        self.environment = half.environment(config.training.device) | machine.facts()
        if half.distributed.devices() > 1:
            shared = f"{half.distributed.devices()} devices, {half.distributed.world().size} processes"
            self.environment |= {"shared": f"{shared}, {config.training.sharding}"}
        self.history: list[EpochRecord] = list(resume.history) if resume else []
        self.steps = steps_per_epoch(len(dataset.train), config.training.batch_size)
        self.saved = len(self.history)
        self.saved_within = 0 if resume is None or resume.terms is None else len(resume.terms.total)
        self.checkpoint_steps = 0
        self.kept: Any = None
        self.start = time.perf_counter()

    def begin(self) -> Any:
        """The state to go on from. Whatever can be refused is refused before anything is written or removed.

        What an earlier end left (summary, weights) stays until it is replaced: it is of as many epochs as it says.
        """
        half, config, run, resume = self.half, self.config, self.run, self.resume
        if resume:
            with together(half):
                _require_continuity(run, config, self.dataset, resume)
        going_on = resume is not None and bool(resume.arrays)
        state = (
            half.state_from_arrays(config, resume.arrays)
            if resume and going_on
            else half.create_state(config, self.dataset.train.some)
        )
        made = {"framework": self.framework, "config": config.to_json(), "data": self.dataset.fingerprint}
        arrays = half.state_to_arrays(state)
        with together(half), stopping.BUSY:
            if writes(half):
                files.remove_parts(run.folder)
                if going_on:  # first: from here on the run's own file says how far it goes
                    self.write(arrays, self.epochs_of(state), resume.terms if resume else None)
                run.write_json(BEGUN, made | {"environment": self.environment, "command": self.command})
                run.rewrite_metrics(self.history)
                if not going_on:
                    self.write(arrays, self.epochs_of(state))
        return state

    def save(self, state: Any) -> None:
        """Writes the checkpoint, with the records of the epochs that the state has behind it."""
        arrays = self.half.state_to_arrays(state)  # several processes may each hold a part
        within = self.resume.terms if self.resume and state.step % self.steps else None  # where it went on, then
        if writes(self.half):
            self.write(arrays, self.epochs_of(state), within)

    def save_part(self, state: Any, done: int, terms: Callable[[], Terms]) -> None:
        """Writes the checkpoint within an epoch, where enough of its steps have gone by."""
        if done < self.steps and done - self.saved_within >= self.checkpoint_steps > 0:
            found, arrays = terms(), self.half.state_to_arrays(state)
            held = [*found.named().values(), *(array for array in arrays.values() if array.dtype.kind == "f")]
            if all(np.isfinite(values).all() for values in held):  # else the epoch's end says what is lost
                self.saved_within = done
                with stopping.BUSY:
                    if writes(self.half):
                        self.write(arrays, self.epochs_of(state), found)

    def write(self, arrays: checkpoints.Arrays, epochs: int, terms: Terms | None = None) -> None:
        """Writes the checkpoint after so many epochs, and the steps of the next one that these are the terms of."""
        history = self.history[:epochs]
        done = checkpoints.Checkpoint(
            arrays,
            self.config,
            self.framework,
            len(history),
            history,
            self.dataset.fingerprint,
            terms,
        )
        checkpoints.write(self.run.checkpoint_path, done)
        self.saved = len(history)

    def epochs_of(self, state: Any) -> int:
        """Epochs that a state has behind it."""
        epochs: int = state.step // self.steps
        return epochs

    def keep(self, state: Any) -> None:
        """Holds on to a copy of the state before an epoch: what is saved where the process is told to stop in it."""
        self.kept = state

    def record(self, state: Any, record: EpochRecord) -> None:
        """Keeps what an epoch was worth, and the state after it where it is time for that."""
        with stopping.BUSY:
            self.history.append(record | {"framework": self.framework})
            self.saved_within = 0
            if writes(self.half):
                self.run.append(self.history[-1])
            if record["epoch"] % self.checkpoint_every == 0 or record["epoch"] == self.config.training.epochs:
                self.save(state)

    def finish(self, state: Any) -> dict[str, Any]:
        half, config, dataset = self.half, self.config, self.dataset
        seen = evaluated_by(config, dataset, "test")
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
            seen.split: mean_terms(half.evaluate(state.evaluated, seen.images, config, seen.labels)),
            "images": {"train": len(dataset.train), "test": len(dataset.test)},
            "median_images_per_second": statistics.median(speeds) if speeds else None,
            "seconds": time.perf_counter() - self.start,
            "peak_device_bytes": half.peak_memory(half.select_device(config.training.device)),
            "environment": self.environment,
            "data": dataset.fingerprint,
            "folder": str(self.run.folder),
        }
        weights = half.to_arrays(state.evaluated)
        if writes(half):
            with stopping.BUSY:
                checkpoints.write_weights(self.run.folder / "weights.safetensors", weights)
                self.run.write_json(SUMMARY, summary)
        return summary


def _require_continuity(run: Run, config: Config, dataset: Dataset, resume: checkpoints.Checkpoint) -> None:
    """Raises InputError where the run would not go on from where it stopped."""
    require_data(run.folder, resume.data, dataset)
    if run.checkpoint_path.exists() and run.checkpoint().epoch != resume.epoch:
        raise InputError(f"resume: {run.folder} was trained on while it was being read; resume it again")
    if resume.arrays:
        within = 0 if resume.terms is None else len(resume.terms.total)
        steps = resume.epoch * steps_per_epoch(len(dataset.train), config.training.batch_size) + within
        found = resume.arrays.get(checkpoints.STEP)
        if found is None or found.shape != () or int(found) != steps:
            raise InputError(f"checkpoint: received step {found}, expected {steps} after {resume.epoch} epochs")
