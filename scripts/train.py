"""Trains one model in one half.

python -m scripts.train --framework torch --model vae --dataset mnist
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from scripts.experiment import Experiment, Flat, ModelName, load_dataset
from scripts.halves import Framework, load_halves
from vae_common import resume, runs, trainings
from vae_common.command_line import run
from vae_common.configs import InputError


@dataclass(frozen=True)
class Arguments:
    """Trains one model in one half."""

    framework: Framework | None = None
    """The half; by default jax, or the one that wrote the run to resume."""
    model: ModelName = "vae"
    seed: int = 0
    """Decides weights, batch order and noise."""
    output: Path | None = None
    """The run's folder; by default a new one under runs/."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    resume: Path | None = None
    """A run's folder to go on with, in either half; its own config counts, but for --epochs, --device."""
    experiment: Annotated[Experiment, Flat] = field(default_factory=Experiment)


def main(arguments: Arguments) -> dict[str, Any]:
    if arguments.checkpoint_every < 1:
        raise InputError(f"checkpoint_every: received {arguments.checkpoint_every}, expected an integer >= 1")
    point = None if arguments.resume is None else resume.resume_point(arguments.resume)
    framework = arguments.framework or (point.framework if point else "jax")
    halves = load_halves(framework, program_cache=arguments.experiment.program_cache)
    if point and arguments.resume:
        config = resume.resumed_config(point, sys.argv[1:])
        folder, dataset = arguments.resume, load_dataset(config.data)
    else:
        config, dataset = arguments.experiment.load(halves)
        config = dataclasses.replace(config, model=arguments.model, seed=arguments.seed)
        name = f"{framework}-{config.model}-{dataset.name.replace('/', '-')}-seed{config.seed}"
        folder = runs.new_folder(arguments.output, name)
    command, every = ["python", "-m", "scripts.train", *sys.argv[1:]], arguments.checkpoint_every
    half = halves[framework]
    return trainings.train(half, config, dataset, folder, command=command, checkpoint_every=every, resume=point)


if __name__ == "__main__":
    run(Arguments, main)
