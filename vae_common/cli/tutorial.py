"""The tutorial from end to end, with its own preset: AE and VAE, trained and drawn.

python -m scripts.tutorial --framework both --dataset mnist
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from vae_common import stopping
from vae_common.backend import installed, load_halves
from vae_common.cli.command_line import called
from vae_common.cli.experiment import Experiment, Flat, load_dataset
from vae_common.comparison.options import ClaimOptions
from vae_common.figures.options import FigureOptions

MODELS = ("ae", "vae")


@dataclass(frozen=True)
class Arguments:
    """The tutorial from end to end: trains its AE and its VAE and draws its figures."""

    framework: Literal["jax", "torch", "both"] = field(
        default_factory=lambda: "both" if len(installed()) > 1 else installed()[0]
    )
    seed: int = 0
    output: Path | None = None
    """Where runs and figures go; by default a new folder under runs/."""
    figures: Annotated[FigureOptions, Flat] = field(default_factory=FigureOptions)
    experiment: Annotated[Experiment, Flat] = field(default_factory=lambda: Experiment(preset="tutorial"))


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.comparison.compare import compare, outcome
    from vae_common.comparison.plan import Plan
    from vae_common.comparison.training import checked, train_all
    from vae_common.runs.folder import new_folder

    frameworks = ("jax", "torch") if arguments.framework == "both" else (arguments.framework,)
    halves = load_halves(
        *frameworks, program_cache=arguments.experiment.program_cache, threads=arguments.experiment.threads
    )
    dataset = load_dataset(arguments.experiment.data)
    configs = tuple(arguments.experiment.configs(MODELS, dataset))
    command = (*called("tutorial"), *sys.argv[1:])
    plan = Plan(configs, (arguments.seed,), False, ClaimOptions(), arguments.figures, command)
    plan = checked(halves, plan, dataset)
    arguments.figures.check(dataset.shown)
    folder = new_folder(arguments.output, f"tutorial-{dataset.name.replace('/', '-')}")
    how = "the same command, with another --output"
    if len(halves) > 1:  # a comparison like any other
        plan.write(folder, dataset)
        how = f"{' '.join(called('compare'))} --resume {shlex.quote(str(folder))}"
    with stopping.mend(lambda: how):
        groups = train_all(halves, plan, dataset, folder)
    summary = compare(halves, groups, dataset, folder, arguments.figures, command)
    print(*summary["figures"], summary["report"], sep="\n")
    return outcome(summary)
