"""Trains both halves (or takes finished runs) and lays them side by side in a report.

python -m scripts.compare --dataset mnist --models ae vae --seeds 0 1 2
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from scripts.command_line import Experiment, Flat, ModelName, load_dataset, load_halves, run
from vae_common import claims, experiments, runs
from vae_common.configs import InputError
from vae_common.figures import FigureOptions


@dataclass(frozen=True)
class Arguments:
    """Trains both halves (or takes finished runs) and lays them side by side in a report."""

    models: tuple[ModelName, ...] = ("ae", "vae")
    seeds: tuple[int, ...] = (0,)
    runs: tuple[Path, ...] = ()
    """Finished runs' folders, in pairs, instead of training; their config counts."""
    check: Literal["none", "lockstep", "paired", "independent"] = "none"
    """lockstep: the same seed, step by step, in float64; paired: the same seeds, statistically;
    independent: disjoint seeds and native randomness. Exit status 1 where a claim does not hold."""
    lockstep_steps: int = 300
    """Training steps of --check lockstep."""
    output: Path | None = None
    """The comparison's folder; by default a new one under runs/."""
    figures: Annotated[FigureOptions, Flat] = field(default_factory=FigureOptions)
    experiment: Annotated[Experiment, Flat] = field(default_factory=Experiment)


def main(arguments: Arguments) -> dict[str, Any]:
    if arguments.check in ("paired", "independent") and not arguments.runs and len(arguments.seeds) < 2:
        raise InputError(f"seeds: received {len(arguments.seeds)} for --check {arguments.check}, expected at least 2")
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
        if arguments.check == "independent":
            config = dataclasses.replace(config, training=dataclasses.replace(config.training, randomness="native"))
        arguments.figures.check(dataset)
        folder = runs.new_folder(arguments.output, f"compare-{dataset.name.replace('/', '-')}")
        disjoint = arguments.check == "independent"
        groups = experiments.train_all(
            halves, config, arguments.models, arguments.seeds, dataset, folder, command, disjoint=disjoint
        )
    summary = experiments.compare(
        halves, groups, dataset, folder, arguments.figures, command, arguments.check, arguments.lockstep_steps
    )
    for name in (*summary["figures"], str(folder / "summary.json"), summary["report"]):
        print(name)
    return experiments.outcome(summary)


def status(outcome: dict[str, Any]) -> int:
    """1 where a claim does not hold."""
    return int(bool(claims.failed(outcome["claims"])))


if __name__ == "__main__":
    run(Arguments, main, status)
