"""Trains every combination of some config fields' values; a table and a figure at the end.

python -m scripts.sweep --vary loss.beta=0.5,1,4 network.latent_dim=2,8 --seeds 0 1 --output runs/sweep
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from vae_common import files, stopping
from vae_common.backend import Framework, installed, load_halves
from vae_common.cli.command_line import called
from vae_common.cli.experiment import Experiment, Flat, ModelName
from vae_common.config.checks import require_each_once
from vae_common.errors import require


@dataclass(frozen=True)
class Arguments:
    """Trains every combination; called again it skips what has finished and goes on with what was stopped."""

    vary: tuple[str, ...] = ()
    """field=value,value of the config, for example loss.beta=1,4 or network.hidden=[512],[512,256]."""
    frameworks: tuple[Framework, ...] = field(default_factory=installed)
    model: ModelName = "vae"
    seeds: tuple[int, ...] = (0,)
    ensemble: bool = False
    """Trains all seeds of a combination in one program."""
    tensorboard: bool = False
    """Also writes each run's losses for TensorBoard, into its folder."""
    output: Path = Path("runs/sweep")
    launcher: Literal["here", "submitit"] = "here"
    """submitit: a job for each run, on SLURM, or without it as processes of this machine."""
    job: tuple[str, ...] = ()
    """What submitit is told of the jobs: timeout_min=600 slurm_partition=gpu cpus_per_task=4."""
    experiment: Annotated[Experiment, Flat] = field(default_factory=Experiment)


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.figures import plotting
    from vae_common.runs import tensorboard
    from vae_common.runs.folder import Run
    from vae_common.studies import launchers, sweep_plots, sweeps

    require_each_once(seeds=arguments.seeds, frameworks=arguments.frameworks)
    if arguments.tensorboard:
        tensorboard.require()
    halves = load_halves(
        *arguments.frameworks, program_cache=arguments.experiment.program_cache, threads=arguments.experiment.threads
    )
    together = len(arguments.seeds) if arguments.ensemble else 1
    base, dataset = arguments.experiment.load(halves, arguments.model, seeds_together=together)
    output, command = arguments.output, [*called("sweep"), *sys.argv[1:]]
    fields = [text.partition("=")[0] for text in arguments.vary]
    common: dict[str, Any] = {"command": command, "ensemble": arguments.ensemble}
    if arguments.launcher == "submitit":
        common["launch"] = lambda jobs: launchers.submit(jobs, output / "jobs", arguments.job)
    require(arguments.launcher == "submitit" or not arguments.job, "job", arguments.job, "none without a launcher")
    with stopping.mend(lambda: "the same command again"):
        rows = sweeps.train(halves, base, arguments.vary, arguments.seeds, dataset, output, **common)
    for row in rows if arguments.tensorboard else ():
        tensorboard.write(Run(Path(row["folder"])))
    means = sweeps.by_point(rows, fields)
    files.write_atomically(output / "table.csv", sweeps.as_csv(rows).encode(errors="backslashreplace"))
    record = {files.KIND: sweeps.KIND, "command": command, "config": base.to_json(), "data": dataset.fingerprint}
    files.write_json(output / "summary.json", record | {"points": means})
    figure = plotting.save(sweep_plots.sweep(means, fields), output / "sweep.png")
    print(output / "table.csv", figure, sep="\n")
    return {"runs": len(rows), "points": means}
