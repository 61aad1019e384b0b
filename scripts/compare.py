"""Trains both halves (or takes finished runs) and lays them side by side in a report.

python -m scripts.compare --dataset mnist --models ae vae --seeds 0 1 2
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from scripts.command_line import Experiment, Flat, ModelName, load_dataset, load_halves, run
from vae_common import experiments, runs
from vae_common.figures import FigureOptions


@dataclass(frozen=True)
class Arguments:
    """Trains both halves (or takes finished runs) and lays them side by side in a report."""

    models: tuple[ModelName, ...] = ("ae", "vae")
    seeds: tuple[int, ...] = (0,)
    runs: tuple[Path, ...] = ()
    """Finished runs' folders, in pairs, instead of training; their config counts."""
    output: Path | None = None
    """The comparison's folder; by default a new one under runs/."""
    figures: Annotated[FigureOptions, Flat] = field(default_factory=FigureOptions)
    experiment: Annotated[Experiment, Flat] = field(default_factory=Experiment)


def main(arguments: Arguments) -> dict[str, Any]:
    halves = load_halves("jax", "torch")
    command = ["python", "-m", "scripts.compare", *sys.argv[1:]]
    if arguments.runs:
        config, groups = experiments.group_runs(arguments.runs, list(halves))
        dataset = load_dataset(config.data)
        arguments.figures.check(dataset)
        folder = runs.new_folder(arguments.output, f"compare-{dataset.name.replace('/', '-')}")
    else:
        config, dataset = arguments.experiment.load(halves)
        experiments.check_choice(config, arguments.models, arguments.seeds)
        arguments.figures.check(dataset)
        folder = runs.new_folder(arguments.output, f"compare-{dataset.name.replace('/', '-')}")
        groups = experiments.train_all(halves, config, arguments.models, arguments.seeds, dataset, folder, command)
    summary = experiments.compare(halves, groups, dataset, folder, arguments.figures, command)
    for name in (*summary["figures"], str(folder / "summary.json"), summary["report"]):
        print(name)
    return experiments.outcome(summary)


if __name__ == "__main__":
    run(Arguments, main)
