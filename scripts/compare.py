"""Trains both halves (or takes finished runs) and lays them side by side in a report.

python -m scripts.compare --dataset mnist --models ae vae --seeds 0 1 2
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from scripts.experiment import Experiment, Flat, ModelName, load_dataset
from scripts.halves import load_halves
from vae_common import experiments, runs
from vae_common.claims import ClaimOptions, failed
from vae_common.command_line import run
from vae_common.figures import FigureOptions


@dataclass(frozen=True)
class Arguments:
    """Trains both halves (or takes finished runs) and lays them side by side in a report."""

    models: tuple[ModelName, ...] = ("ae", "vae")
    seeds: tuple[int, ...] = (0,)
    parallel_seeds: bool = False
    """Trains all seeds of a model and half in one program."""
    runs: tuple[Path, ...] = ()
    """Finished runs' folders, in pairs, instead of training; their config counts."""
    output: Path | None = None
    """The comparison's folder; by default a new one under runs/."""
    claims: Annotated[ClaimOptions, Flat] = field(default_factory=ClaimOptions)
    figures: Annotated[FigureOptions, Flat] = field(default_factory=FigureOptions)
    experiment: Annotated[Experiment, Flat] = field(default_factory=Experiment)


def main(arguments: Arguments) -> dict[str, Any]:
    halves, wanted = load_halves("jax", "torch", program_cache=arguments.experiment.program_cache), arguments.claims
    command = ["python", "-m", "scripts.compare", *sys.argv[1:]]
    if arguments.runs:
        finished, groups = experiments.group_runs(arguments.runs, list(halves), wanted)
        dataset = load_dataset(finished.config.data)
        runs.require_data(arguments.runs[0], finished, dataset)
    else:
        config, dataset = arguments.experiment.load(halves)
        config = experiments.choose(halves, config, arguments.models, arguments.seeds, wanted)
    arguments.figures.check(dataset)
    folder = runs.new_folder(arguments.output, f"compare-{dataset.name.replace('/', '-')}")
    if not arguments.runs:
        models, seeds, parallel = arguments.models, arguments.seeds, arguments.parallel_seeds
        disjoint = wanted.disjoint
        groups = experiments.train_all(halves, config, models, seeds, dataset, folder, command, disjoint, parallel)
    summary = experiments.compare(halves, groups, dataset, folder, arguments.figures, command, wanted)
    print(*summary["figures"], folder / "summary.json", summary["report"], sep="\n")
    return experiments.outcome(summary)


if __name__ == "__main__":
    run(Arguments, main, status=lambda outcome: int(bool(failed(outcome["claims"]))))
