"""Trains one model in one half.

python -m scripts.train --framework torch --model vae --dataset mnist
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

from vae_common import stopping, worlds
from vae_common.backend import Framework, installed, installed_half, load_halves
from vae_common.cli.command_line import called, given, require_only
from vae_common.cli.experiment import Experiment, Flat, ModelName, load_dataset
from vae_common.config.checks import require_count


@dataclass(frozen=True)
class Arguments:
    """Trains one model in one half."""

    framework: Framework | None = None
    """The half; by default jax, or the one that wrote the run to resume, or the one that is installed."""
    model: ModelName = "vae"
    seed: int = 0
    """Decides weights, batch order and noise."""
    output: Path | None = None
    """The run's folder; by default a new one under runs/."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    checkpoint_steps: int = 1000
    """Of a stream: at least so many steps between checkpoints within an epoch; 0 makes none."""
    resume: Path | None = None
    """A run's folder to go on with, in either half; its own config counts, but for --epochs, --device, --execution, and
    for --dataset, --data-dir, --manual-dir where its data have moved."""
    devices: int = 1
    """Devices of this machine that share each batch. (Over several machines: torchrun or srun starts the processes.)"""
    experiment: Annotated[Experiment, Flat] = field(default_factory=Experiment)


WORLDS = True
"""Several processes may share it."""
KEPT = ("--checkpoint-every", "--checkpoint-steps")
RUN = ("--framework", *KEPT, "--program-cache", "--no-program-cache", "--devices", "--sharding", "--threads")
PLACES = ("dataset", "data_dir", "manual_dir")
BESIDE_RESUME = (*RUN, "--epochs", "--device", "--execution", "--dataset", "--data-dir", "--manual-dir")


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.runs import trainer
    from vae_common.runs.folder import Run, new_folder
    from vae_common.runs.resume import resumed_config
    from vae_common.runs.together import of_the_first, together, writes

    require_count("checkpoint_every", arguments.checkpoint_every, 1)
    require_count("devices", arguments.devices, 1)
    require_count("checkpoint_steps", arguments.checkpoint_steps)
    experiment = arguments.experiment
    command = [*called("train"), *sys.argv[1:]]
    point = None
    if arguments.resume is not None:
        require_only("--resume", BESIDE_RESUME, sys.argv[1:])
        point = Run(arguments.resume).resume_point()
    framework = arguments.framework or (installed_half(point.framework) if point else installed()[0])
    world = worlds.from_environment()
    if framework == "torch" and arguments.devices > 1 and world.size == 1:
        _start_processes(arguments.devices)
    half = load_halves(framework, program_cache=experiment.program_cache, threads=experiment.threads)[framework]
    own = point is None or "--device" in given(sys.argv[1:])
    device = (experiment if point is None or own else point.config).training.device
    half.distributed.start(world, arguments.devices, device)
    if point and arguments.resume:
        asked: dict[str, Any] = {
            name: getattr(experiment.training, name)
            for name in ("epochs", "device", "execution", "sharding")
            if f"--{name}" in given(sys.argv[1:])
        }
        there = {name: getattr(experiment.data, name) for name in PLACES}
        now = {name: value for name, value in there.items() if f"--{name.replace('_', '-')}" in given(sys.argv[1:])}
        config = resumed_config(point, replace(point.config.data, **now), **asked)
        folder, dataset = arguments.resume, load_dataset(config.data)
    else:
        folder = Path()
        with together(half):
            config, dataset = experiment.load({framework: half}, arguments.model, arguments.seed)
            name = f"{framework}-{config.model}-{dataset.name.replace('/', '-')}-seed{config.seed}"
            if writes(half):
                folder = new_folder(arguments.output, name)
        folder = Path(of_the_first(half, str(folder)))
    how = f"{' '.join(called('train'))} --resume {shlex.quote(str(folder))}"
    with stopping.mend(lambda: how if Run(folder).is_begun else "the same command again"):
        kept: Any = {"checkpoint_every": arguments.checkpoint_every, "checkpoint_steps": arguments.checkpoint_steps}
        summary = trainer.train(half, config, dataset, folder, command=command, resume=point, **kept)
    half.distributed.stop()
    return summary


def _start_processes(count: int) -> NoReturn:
    """The same command in as many processes, by torchrun, in place of this one: PyTorch takes one for each device."""
    flags = list(sys.argv[1:])
    place = next(i for i, flag in enumerate(flags) if flag.partition("=")[0] == "--devices")
    del flags[place : place + (1 if "=" in flags[place] else 2)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    os.execv(sys.executable, [*launcher, "-m", "vae_common.cli", "train", *flags])
