"""The tutorial from end to end, with its own preset: AE and VAE, trained and drawn.

python -m scripts.tutorial --framework both --dataset mnist
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from scripts.experiment import Experiment, Flat
from scripts.halves import load_halves
from vae_common import experiments, runs, stopping
from vae_common.claims import ClaimOptions
from vae_common.command_line import run
from vae_common.figures import FigureOptions


@dataclass(frozen=True)
class Arguments:
    """The tutorial from end to end: trains its AE and its VAE and draws its figures."""

    framework: Literal["jax", "torch", "both"] = "both"
    seed: int = 0
    output: Path | None = None
    """Where runs and figures go; by default a new folder under runs/."""
    figures: Annotated[FigureOptions, Flat] = field(default_factory=FigureOptions)
    experiment: Annotated[Experiment, Flat] = field(default_factory=lambda: Experiment(preset="tutorial"))


MODELS = ("ae", "vae")


def main(arguments: Arguments) -> dict[str, Any]:
    frameworks = ("jax", "torch") if arguments.framework == "both" else (arguments.framework,)
    halves = load_halves(*frameworks, program_cache=arguments.experiment.program_cache)
    config, dataset = arguments.experiment.load(halves)
    config = experiments.choose(halves, config, dataset, MODELS, (arguments.seed,))
    arguments.figures.check(dataset)
    folder = runs.new_folder(arguments.output, f"tutorial-{dataset.name.replace('/', '-')}")
    command = ["python", "-m", "scripts.tutorial", *sys.argv[1:]]
    plan = experiments.Plan(config, MODELS, (arguments.seed,), False, ClaimOptions(), arguments.figures)
    how = "the same command, with another --output"
    if len(halves) > 1:  # a comparison like any other
        plan.write(folder, dataset, command)
        how = f"python -m scripts.compare --resume {shlex.quote(str(folder))}"
    with stopping.mend(lambda: how):
        groups = experiments.train_all(halves, config, MODELS, (arguments.seed,), dataset, folder, command)
    summary = experiments.compare(halves, groups, dataset, folder, arguments.figures, command)
    for name in (*summary["figures"], summary["report"]):
        print(name)
    return experiments.outcome(summary)


if __name__ == "__main__":
    run(Arguments, main)
