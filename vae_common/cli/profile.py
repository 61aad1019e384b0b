"""Where the time of a training step goes, in both halves: python -m scripts.profile --model vae --batch-size 128"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from vae_common.backend import Framework, installed, load_halves
from vae_common.cli.command_line import called, require_only
from vae_common.cli.experiment import Experiment, Flat, ModelName, load_dataset
from vae_common.config.checks import require_count
from vae_common.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Profiles a training step in both halves, part by part; leaves a table, a figure and the frameworks' traces."""

    frameworks: tuple[Framework, ...] = field(default_factory=installed)
    model: ModelName = "vae"
    run: Path | None = None
    """A run's folder: its experiment is profiled."""
    steps: int = 60
    """Of the epoch that is profiled."""
    output: Path | None = None
    """The folder; by default a new one under runs/."""
    experiment: Annotated[Experiment, Flat] = field(default_factory=lambda: Experiment(program_cache=False))


MOST_STEPS = 10_000
_BESIDE_RUN = ("--frameworks", "--steps", "--output", "--threads")


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.runs.folder import Run, new_folder

    require_count("steps", arguments.steps, 1, MOST_STEPS)
    if arguments.run is not None:
        require_only("--run", _BESIDE_RUN, sys.argv[1:])
        config = Run(arguments.run).checkpoint().config
    else:
        dataset = load_dataset(arguments.experiment.data)
        (config,) = arguments.experiment.configs([arguments.model], dataset)
    if config.training.execution != "auto":
        received = config.training.execution
        raise InputError(f"execution: received {received}, expected auto: only that says what its operations come from")
    if config.network.classes:
        raise InputError("classes: received a model that is given labels, expected none; profile it with --classes 0")
    config = replace(config, network=replace(config.network, output_bias="initializer"))  # else it needs the images
    # No program cache: what comes from one does not say where its operations come from.
    halves = load_halves(*arguments.frameworks, program_cache=False, threads=arguments.experiment.threads)
    for half in halves.values():
        half.device_for(config)

    from vae_common.benchmark import profiling

    folder = new_folder(arguments.output, "profile")
    record = profiling.write(halves, config, arguments.steps, folder, [*called("profile"), *sys.argv[1:]])
    parts = {name: of["parts"] for name, of in record["halves"].items()}
    print(record["table"])
    print(record["found"])
    shares = {name: of["attributed"] for name, of in record["halves"].items()}
    return {"found": record["found"], "attributed": shares, "record": str(folder / "profile.json"), "parts": parts}
