"""Trains one model in one half.

python -m scripts.train --framework torch --model vae --dataset mnist
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from scripts.command_line import Experiment, Flat, Framework, load_halves, run
from vae_common import runs


@dataclass(frozen=True)
class Arguments:
    """Trains one model in one half."""

    framework: Framework = "jax"
    model: Literal["ae", "vae"] = "vae"
    seed: int = 0
    """Decides weights, batch order and noise."""
    output: Path | None = None
    """The run's folder; by default a new one under runs/."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    experiment: Annotated[Experiment, Flat] = field(default_factory=Experiment)


def main(arguments: Arguments) -> dict[str, Any]:
    halves = load_halves(arguments.framework)
    config, dataset = arguments.experiment.load(halves)
    config = dataclasses.replace(config, model=arguments.model, seed=arguments.seed)
    name = f"{arguments.framework}-{config.model}-{dataset.name.replace('/', '-')}-seed{config.seed}"
    return runs.train(
        halves[arguments.framework],
        config,
        dataset,
        runs.new_folder(arguments.output, name),
        command=["python", "-m", "scripts.train", *sys.argv[1:]],
        checkpoint_every=arguments.checkpoint_every,
    )


if __name__ == "__main__":
    run(Arguments, main)
