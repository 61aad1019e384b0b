"""Trains both halves (or takes finished runs) and lays them side by side in a report.

python -m scripts.compare --dataset mnist --models ae vae --seeds 0 1 2
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from scripts.experiment import Experiment, Flat, ModelName, load_dataset
from scripts.halves import load_halves
from vae_common import datasets, experiments, files, runs, stopping
from vae_common.claims import ClaimOptions, failed
from vae_common.command_line import require_only, run
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
    resume: Path | None = None
    """The folder of a comparison that was stopped, to go on with; no training is made twice."""
    output: Path | None = None
    """The comparison's folder; by default a new one under runs/."""
    claims: Annotated[ClaimOptions, Flat] = field(default_factory=ClaimOptions)
    figures: Annotated[FigureOptions, Flat] = field(default_factory=FigureOptions)
    experiment: Annotated[Experiment, Flat] = field(default_factory=Experiment)


def main(arguments: Arguments) -> dict[str, Any]:
    program_cache = arguments.experiment.program_cache
    if arguments.resume is not None:
        require_only("--resume", ("--program-cache", "--no-program-cache"), sys.argv[1:])
    halves = load_halves("jax", "torch", program_cache=program_cache)
    command = ["python", "-m", "scripts.compare", *sys.argv[1:]]
    if arguments.runs:
        return _compare_runs(halves, arguments, command)
    if arguments.resume is not None:
        plan, data = experiments.Plan.read(arguments.resume)
        dataset = load_dataset(plan.config.data)
        runs.require_data(arguments.resume, data, dataset)
        experiments.choose(halves, plan.config, dataset, plan.models, plan.seeds, plan.claims, plan.parallel_seeds)
    else:
        plan, dataset = _planned(halves, arguments)
    plan.figures.check(dataset)
    folder = arguments.resume
    if folder is None:
        folder = runs.new_folder(arguments.output, f"compare-{dataset.name.replace('/', '-')}")
    how = f"python -m scripts.compare --resume {shlex.quote(str(folder))}"
    with files.alone_in(folder, "is being compared in by another process"), stopping.mend(lambda: how):
        files.remove_parts(folder)
        if arguments.resume is None:
            plan.write(folder, dataset, command)
        groups = experiments.train_all(
            halves, plan.config, plan.models, plan.seeds, dataset, folder, command, plan.claims.disjoint,
            plan.parallel_seeds,
        )  # fmt: skip
        summary = experiments.compare(halves, groups, dataset, folder, plan.figures, command, plan.claims)
    return _told(summary, folder)


def _planned(halves: Mapping[str, ModuleType], arguments: Arguments) -> tuple[experiments.Plan, datasets.Dataset]:
    """What the flags ask for; nothing is written."""
    config, dataset = arguments.experiment.load(halves)
    models, seeds, together = arguments.models, arguments.seeds, arguments.parallel_seeds
    config = experiments.choose(halves, config, dataset, models, seeds, arguments.claims, together)
    plan = experiments.Plan(config, models, seeds, together, arguments.claims, arguments.figures)
    return plan, dataset


def _compare_runs(halves: Mapping[str, ModuleType], arguments: Arguments, command: list[str]) -> dict[str, Any]:
    """Compares finished runs."""
    finished, groups = experiments.group_runs(arguments.runs, list(halves), arguments.claims)
    dataset = load_dataset(finished.config.data)
    for place in arguments.runs:
        runs.require_data(place, runs.Run(place).checkpoint().data, dataset)
    arguments.figures.check(dataset)
    folder = runs.new_folder(arguments.output, f"compare-{dataset.name.replace('/', '-')}")
    how = f"the same command, once {folder} is deleted"
    with stopping.mend(lambda: how), files.gone_if_unused(folder):
        summary = experiments.compare(halves, groups, dataset, folder, arguments.figures, command, arguments.claims)
    return _told(summary, folder)


def _told(summary: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Names what was written; returns what the command prints."""
    print(*summary["figures"], folder / "summary.json", summary["report"], sep="\n")
    return experiments.outcome(summary)


if __name__ == "__main__":
    run(Arguments, main, status=lambda outcome: int(bool(failed(outcome["claims"]))))
