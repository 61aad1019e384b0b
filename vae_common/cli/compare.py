"""Trains both halves (or takes finished runs) and lays them side by side in a report.

python -m scripts.compare --dataset mnist --models ae vae --seeds 0 1 2
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vae_common import files, stopping
from vae_common.backend import Halves, load_halves
from vae_common.cli.command_line import called, require_only
from vae_common.cli.experiment import Experiment, Flat, ModelName, load_dataset
from vae_common.comparison.options import ClaimOptions
from vae_common.figures.options import FigureOptions

if TYPE_CHECKING:
    from vae_common.comparison.plan import Plan
    from vae_common.data.splits import Dataset


@dataclass(frozen=True)
class Arguments:
    """Trains both halves (or takes finished runs) and lays them side by side in a report."""

    models: tuple[ModelName, ...] = ("ae", "vae")
    seeds: tuple[int, ...] = (0,)
    ensemble: bool = False
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
    if arguments.resume is not None:
        require_only("--resume", ("--program-cache", "--no-program-cache", "--threads"), sys.argv[1:])
    halves = load_halves(
        "jax", "torch", program_cache=arguments.experiment.program_cache, threads=arguments.experiment.threads
    )
    command = [*called("compare"), *sys.argv[1:]]
    if arguments.runs:
        return _of_runs(halves, arguments, command)
    from vae_common.comparison.compare import compare
    from vae_common.comparison.training import train_all
    from vae_common.runs.folder import new_folder

    plan, dataset = _planned(halves, arguments, command)
    plan.figures.check(dataset.shown)
    folder = arguments.resume or new_folder(arguments.output, f"compare-{dataset.name.replace('/', '-')}")
    how = f"{' '.join(called('compare'))} --resume {shlex.quote(str(folder))}"
    with files.alone_in(folder, "is being compared in by another process"), stopping.mend(lambda: how):
        files.remove_parts(folder)
        if arguments.resume is None:
            plan.write(folder, dataset)
        groups = train_all(halves, plan, dataset, folder)
        summary = compare(halves, groups, dataset, folder, plan.figures, plan.command, plan.claims)
    return _told(summary, folder)


def status(result: Mapping[str, Any]) -> int:
    """1 where a claim does not hold."""
    return int(not all(claim["holds"] for claim in result["claims"]))


def _planned(halves: Halves, arguments: Arguments, command: list[str]) -> tuple[Plan, Dataset]:
    """What the flags ask for, or what a folder was begun with; nothing is written."""
    from vae_common.comparison.plan import Plan
    from vae_common.comparison.training import checked
    from vae_common.runs.folder import require_data

    if arguments.resume is not None:
        plan, data = Plan.read(arguments.resume)
        dataset = load_dataset(plan.configs[0].data)
        require_data(arguments.resume, data, dataset)
    else:
        dataset = load_dataset(arguments.experiment.data)
        configs = tuple(arguments.experiment.configs(arguments.models, dataset))
        options = arguments.claims, arguments.figures
        plan = Plan(configs, arguments.seeds, arguments.ensemble, *options, tuple(command))
    return checked(halves, plan, dataset), dataset


def _of_runs(halves: Halves, arguments: Arguments, command: list[str]) -> dict[str, Any]:
    """Compares finished runs."""
    from vae_common.comparison.compare import compare
    from vae_common.comparison.training import group_runs
    from vae_common.runs.folder import new_folder, require_data

    config, groups, data = group_runs(arguments.runs, list(halves), arguments.claims)
    dataset = load_dataset(config.data)
    for place, fingerprint in data.items():
        require_data(place, fingerprint, dataset)
    arguments.figures.check(dataset.shown)
    folder = new_folder(arguments.output, f"compare-{dataset.name.replace('/', '-')}")
    how = f"the same command, once {folder} is deleted"
    with stopping.mend(lambda: how), files.gone_if_unused(folder):
        summary = compare(halves, groups, dataset, folder, arguments.figures, command, arguments.claims)
    return _told(summary, folder)


def _told(summary: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Names what was written; returns what the command prints."""
    from vae_common.comparison.compare import outcome

    print(*summary["figures"], folder / "summary.json", summary["report"], sep="\n")
    return outcome(summary)
